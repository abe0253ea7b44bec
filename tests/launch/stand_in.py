"""Replaces gcloud and kubectl: records each call and simulates a cloud that follows a script.

The programs that `install` writes run this file; $STAND_IN is its folder:

  calls.jsonl   one line per call: its arguments; for kubectl also its stdin
  script.json   the `Script`
  cloud.json    the state of the cloud: whether the slice exists, how many were ever created
  worker<i>/    home directory of a worker, with `on_workers`; what is in its folder shm is lost with the slice
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time


@dataclasses.dataclass
class Script:
  """What happens in the cloud.

  Attributes:
    workers: of the slice.
    states: of the queued resource, one for each poll; ACTIVE after the last, unless that is in `ENDS`.
    reports: of worker.sh, one for each poll: a state for each worker, or "PREEMPTED", or "DELETED", or "OFFLINE", after
      which the next `offline` calls get no answer. After the last, all workers have exited with 0.
    fail: (pattern of the call, exit status, stderr, how often to fail).
    fail_after: number of slices that must have been created before a call fails.
    offline: see `reports`.
    create_seconds: duration of a request, whether or not its caller waits for it.
    prints: (pattern of a call of kubectl, its stdout).
    on_workers: run the commands for the workers on this machine, in one folder for each. Of `reports` only "PREEMPTED"
      is then used, which first sends SIGTERM to the processes there.
    preempt_at: with `on_workers`, a pattern; when a worker's log matches it, the slice is preempted, once.
  """

  workers: int = 4
  states: tuple[str, ...] = ()
  reports: tuple = ()
  fail: tuple[tuple[str, int, str, int], ...] = ()
  fail_after: int = 0
  offline: int = 10
  create_seconds: float = 0
  prints: tuple[tuple[str, str], ...] = ()
  on_workers: bool = False
  preempt_at: str = ""


ENDS = ("FAILED", "SUSPENDED", "PREEMPTED")


def install(folder: pathlib.Path, script: Script) -> None:
  """Writes the script and the programs."""
  (folder / "bin").mkdir(parents=True)
  for name in ("gcloud", "kubectl"):
    program = folder / "bin" / name
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" {name} "$@"\n')
    program.chmod(0o755)
  (folder / "script.json").write_text(json.dumps(dataclasses.asdict(script)))
  write_cloud(folder, {"exists": False, "created": 0})


def environment(folder: pathlib.Path) -> dict[str, str]:
  """The environment in which a launcher calls these programs."""
  git = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
  return os.environ | git | {"STAND_IN": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def calls(folder: pathlib.Path) -> list[list[str]]:
  """The arguments of each call."""
  path = folder / "calls.jsonl"
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cloud(folder: pathlib.Path) -> dict:
  """The state of the cloud."""
  return json.loads((folder / "cloud.json").read_text())


def write_cloud(folder: pathlib.Path, now: dict):
  """Replaces the state of the cloud at once, because interrupted launchers kill the call that they wait for."""
  temporary = folder / f"cloud.json.{os.getpid()}"
  temporary.write_text(json.dumps(now))
  temporary.replace(folder / "cloud.json")


def fail(text: str, status: int = 1):
  print(f"ERROR: {text}", file=sys.stderr)
  sys.exit(status)


def gcloud(folder: pathlib.Path, arguments: list[str], script: dict, now: dict):
  """Answers a call of gcloud; `now` is the content of cloud.json, which it changes."""
  inject_failures(arguments, script, now)
  kind, verb = arguments[2:4]
  if (kind, verb) == ("queued-resources", "create"):
    create(folder, script, now)
  elif not now["exists"]:
    fail(f"({verb}) NOT_FOUND: Resource '{arguments[4]}' was not found")
  elif (kind, verb) == ("queued-resources", "delete"):
    now["exists"] = False
    for run in folder.glob("worker*/shufflenet_jax_run"):
      wait_for_end(run / "pid")
      shutil.rmtree(run, ignore_errors=True)  # a slice's disks are deleted with it
    for memory in folder.glob("worker*/shm"):
      shutil.rmtree(memory)
  elif (kind, verb) == ("queued-resources", "describe"):
    describe(script, now)
  elif (kind, verb) == ("tpu-vm", "describe"):
    print("PREEMPTED" if now.get("gone") else "READY")
  elif now.get("gone"):
    fail("[0] Connection timed out", 255)
  else:
    call_workers(folder, verb, arguments, script, now)


def inject_failures(arguments: list[str], script: dict, now: dict):
  """Fails a call as `Script.fail` and `Script.offline` demand."""
  for i, (pattern, status, text, times) in enumerate(script["fail"]):
    due = now["created"] >= script["fail_after"]
    if due and re.search(pattern, " ".join(arguments)) and now.setdefault(f"failed{i}", 0) < times:
      now[f"failed{i}"] += 1
      fail(text, status)
  if now.get("offline"):
    now["offline"] -= 1
    fail("UNAVAILABLE: no route to host")


def create(folder: pathlib.Path, script: dict, now: dict):
  """A request for a slice, which continues if its caller ends."""
  if now["exists"]:
    fail("ALREADY_EXISTS: Resource already exists")
  now |= {"exists": True, "created": now["created"] + 1, "gone": False}
  if script["create_seconds"] and (requested := os.fork()):
    os.waitpid(requested, 0)
  elif script["create_seconds"]:
    time.sleep(script["create_seconds"])
    write_cloud(folder, now)
    os._exit(0)


def describe(script: dict, now: dict):
  """Prints the state of the queued resource."""
  state = "SUSPENDED" if now.get("gone") else "ACTIVE"
  if not now.get("gone") and now.get("polls", 0) < len(script["states"]):
    state = script["states"][now.setdefault("polls", 0)]
    now["polls"] += 1
    now["gone"] = state in ENDS
  reason = {"failedData": {"error": {"message": "no capacity"}}} if state == "FAILED" else {}
  print(json.dumps({"state": {"state": state, **reason}}))


def call_workers(folder: pathlib.Path, verb: str, arguments: list[str], script: dict, now: dict):
  """scp and ssh to the workers of a slice that exists."""
  flags = dict(a[2:].partition("=")[::2] for a in arguments if a.startswith("--"))
  is_report = "worker.sh report" in flags.get("command", "")
  report = next_report(folder, script, now) if is_report else None
  if report == "PREEMPTED":
    now["gone"] = True
    for pid in folder.glob("worker*/shufflenet_jax_run/pid"):  # a VM's processes are notified
      os.kill(int(pid.read_text()), signal.SIGTERM)
    fail("[1] Connection closed by remote host", 255)
  if report == "DELETED":
    now["exists"] = False
    fail("[1] Connection closed by remote host", 255)
  if report == "OFFLINE":
    now["offline"] = script["offline"]
    fail("[1] Connection timed out", 255)
  if verb == "scp":
    shutil.copy(arguments[4], folder / "uploaded.tar.gz")
  if script["on_workers"]:
    on_workers(folder, verb, arguments, flags, script["workers"])
  elif is_report:
    sys.stdout.reconfigure(errors="surrogateescape")
    for state in report or ["exited 0"] * script["workers"]:
      print(f"state: {state} | step {now['reports']}")


def next_report(folder: pathlib.Path, script: dict, now: dict):
  """The next entry of `Script.reports`; None after the last."""
  n = now["reports"] = now.get("reports", 0) + 1
  logs = [path.read_text() for path in folder.glob("worker*/shufflenet_jax_run/log.txt")]
  if script["preempt_at"] and not now.get("preempted") and any(re.search(script["preempt_at"], x) for x in logs):
    now["preempted"] = True
    return "PREEMPTED"
  return script["reports"][n - 1] if n <= len(script["reports"]) else None


def wait_for_end(pid_file: pathlib.Path):
  """Waits for the end of a worker's process: the cloud, too, gives processes time to stop before it deletes a slice."""
  pid = pid_file.read_text().strip() if pid_file.exists() else "none"
  until = time.monotonic() + 60
  while pathlib.Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < until:
    if not pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
      return  # it is a zombie
    time.sleep(0.05)


def on_workers(folder: pathlib.Path, verb: str, arguments: list[str], flags: dict, workers: int):
  """Runs scp and ssh commands on this machine, as a worker's login shell would."""
  status = 0
  for i in range(workers) if flags["worker"] == "all" else [int(flags["worker"])]:
    home = folder / f"worker{i}"
    home.mkdir(exist_ok=True)
    if verb == "scp":
      shutil.copy(arguments[4], home / arguments[5].partition(":")[2])
    else:
      # The workers have another gcloud than the laptop: there it only copies logs.
      path = f"{home}/bin:" + os.environ["PATH"].partition(":")[2]
      environment = os.environ | {"HOME": str(home), "PATH": path}
      done = subprocess.run(["bash", "-c", flags["command"]], cwd=home, env=environment, stdin=subprocess.DEVNULL)
      status = max(status, done.returncode)
  sys.exit(status)


def kubectl(arguments: list[str], script: dict):
  for pattern, status, text, _ in script["fail"]:
    if re.search(pattern, " ".join(arguments)):
      fail(text, status)
  for pattern, text in script["prints"]:
    if re.search(pattern, " ".join(arguments)):
      print(text)


def main():
  folder, program, arguments = pathlib.Path(os.environ["STAND_IN"]), sys.argv[1], sys.argv[2:]
  with (folder / "calls.jsonl").open("a") as f:
    record = [program, *arguments]
    f.write(json.dumps(record + [sys.stdin.read()] if "--filename=-" in arguments else record) + "\n")
  script, now = json.loads((folder / "script.json").read_text()), cloud(folder)
  try:
    if program == "gcloud":
      gcloud(folder, arguments, script, now)
    else:
      kubectl(arguments, script)
  finally:
    write_cloud(folder, now)


if __name__ == "__main__":
  main()
