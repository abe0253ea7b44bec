"""launch/tpu_vm against a scripted gcloud: which commands run, in which order, and that no slice is left running."""

import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

from launch import outcomes
from launch.gcloud import CHECKOUT
from tests.launch import stand_in
from tests.launch.launcher import ROOT, TRAINING, tpu_vm, verbs
from tests.launch.stand_in import Script

RETRYING = ("up", "--spot", "--retry=3")
SETUP = ["scp", "unpack", "setup", "check"]


def test_up_creates_trains_and_deletes(tmp_path):
  script = Script(states=("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"), reports=(["running"] * 4,))
  done = tpu_vm(tmp_path, "up", "--spot", "--project=my-project", "--bucket=gs://my-bucket/logs/", script=script)
  assert done.returncode == outcomes.DONE, done.stderr
  assert verbs(done) == [
    *["describe", "create"], *["describe"] * 3, *SETUP, "start", "report", "report", "delete",
  ]  # fmt: skip
  assert not done.cloud["exists"]
  (create,) = [call for call in done.calls if "create" in call]
  assert create == [
    "gcloud", "compute", "tpus", "queued-resources", "create", "sn-1", "--zone=us-central1-a", "--project=my-project",
    "--node-id=sn-1", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite",
    "--valid-until-duration=360m", "--spot",
  ]  # fmt: skip
  for call in done.calls:
    assert {"--zone=us-central1-a", "--project=my-project"} <= set(call)
  (start,) = [a for call in done.calls for a in call if "worker.sh start" in a]
  sent = shlex.split(start.removeprefix("--command="))
  assert sent[3:] == ["gs://my-bucket/logs/sn-1", "--", "--distributed", *TRAINING]
  (check,) = [a for call in done.calls for a in call if "worker.sh check" in a]
  assert check.endswith("check 16 4")
  for word in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "4 running; step 1", "done", "deleted sn-1"):
    assert word in done.stdout


@pytest.mark.parametrize(
  ("kind", "runtime", "check"),
  [("v4-8", "tpu-ubuntu2204-base", "4 1"), ("v5litepod-8", "v2-alpha-tpuv5-lite", "8 1"),
   ("v5p-16", "v2-alpha-tpuv5", "8 2"), ("v6e-8", "v2-alpha-tpuv6e", "8 1"), ("v6e-16", "v2-alpha-tpuv6e", "16 4")],
)  # fmt: skip
def test_each_generation_has_its_image_and_hosts(tmp_path, kind, runtime, check):
  workers = int(check.split()[1])
  done = tpu_vm(tmp_path, "up", "--reserved", kind=kind, script=Script(workers=workers))
  assert done.returncode == 0, done.stderr
  sent = "\n".join(" ".join(call) for call in done.calls)
  assert f"--runtime-version={runtime} " in sent
  assert "--reserved" in sent and "--spot" not in sent
  assert f"worker.sh check {check}" in sent
  assert ("--distributed" in sent) == (workers > 1)


def test_a_preempted_slice_is_deleted_and_replaced(tmp_path):
  script = Script(reports=(["running"] * 4, "PREEMPTED", ["running"] * 4, ["exited 75"] * 4, ["running"] * 4))
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.DONE, done.stderr
  once = ["create", "describe", *SETUP, "start"]
  assert verbs(done) == [
    "describe", *once, "report", "report", "describe", "delete",
    *once, "report", "report", "delete", *once, "report", "report", "delete",
  ]  # fmt: skip
  assert done.cloud == done.cloud | {"exists": False, "created": 3}
  archives = {call[5] for call in done.calls if call[4] == "scp"}
  assert len(archives) == 1  # every recovery runs the same code
  assert "recovery 2 of 3: a new slice" in done.stdout


def test_a_preemption_during_setup_is_recovered_from(tmp_path):
  script = Script(states=("PROVISIONING", "SUSPENDED", "ACTIVE", "PREEMPTED", "ACTIVE"),
                  fail=(("worker.sh setup", 255, "Connection closed", 1),))  # fmt: skip
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.DONE, done.stderr
  assert done.cloud == done.cloud | {"exists": False, "created": 3}


def test_retries_stop(tmp_path):
  script = Script(reports=("PREEMPTED",) * 9)
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.PREEMPTED
  assert done.cloud == done.cloud | {"exists": False, "created": 4}  # the first, and three recoveries


def test_a_failure_is_run_again_on_the_same_slice(tmp_path):
  script = Script(reports=(["exited 1", *["running"] * 3], ["lost", *["running"] * 3], ["exited 0"] * 4))
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.DONE, done.stderr
  assert done.cloud == done.cloud | {"exists": False, "created": 1}
  once = ["start", "report", "log", "stop"]  # the log of the failed worker, which may be deleted with the slice
  assert verbs(done)[-11:] == [*once, *once, "start", "report", "delete"]


def test_a_slice_preempted_between_two_starts_is_replaced(tmp_path):
  script = Script(reports=(["exited 1", *["running"] * 3],), fail=(("worker.sh stop", 255, "Connection closed", 1),),
                  states=("ACTIVE", "SUSPENDED", "ACTIVE"))  # fmt: skip
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.DONE, done.stderr
  assert done.cloud == done.cloud | {"exists": False, "created": 2}


def test_wrong_input_is_not_retried(tmp_path):
  done = tpu_vm(tmp_path, *RETRYING, script=Script(reports=(["exited 2", "running", "exited 75", "exited 1"],)))
  assert done.returncode == outcomes.WRONG
  assert done.cloud == done.cloud | {"exists": False, "created": 1}
  assert verbs(done).count("start") == 1


@pytest.mark.parametrize(
  ("script", "words"),
  [
    (Script(states=("WAITING_FOR_RESOURCES", "FAILED")), "no capacity"),
    (Script(fail=(("queued-resources create", 1, "RESOURCE_EXHAUSTED: quota", 9),)), "quota"),
    (Script(fail=(("tpu-vm scp", 1, "no space left", 9),)), "no space left"),
    (Script(fail=(("worker.sh setup", 1, "no matching distribution", 9),)), "no matching distribution"),
    (Script(fail=(("worker.sh check", 1, "wanted 16 chips", 9),)), "wanted 16 chips"),
    (Script(fail=(("worker.sh start", 1, "broken", 9),)), "broken"),
  ],
)
def test_no_slice_is_left_on_an_error_path(tmp_path, script, words):
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.FAILED
  assert words in done.stderr
  assert not done.cloud["exists"]
  assert verbs(done)[-1] == "delete"


def test_a_step_that_worked_before_is_retried_up_to_the_limit(tmp_path):
  run = [*(["running"] * 4 for _ in range(2)), "PREEMPTED"]
  script = Script(reports=tuple(run), fail=(("worker.sh report", 1, "broken", 99),))
  done = tpu_vm(tmp_path / "broken", *RETRYING, script=script)
  assert done.returncode == outcomes.FAILED and "broken" in done.stdout
  assert done.cloud == done.cloud | {"exists": False, "created": 4}
  # A recovery's request is refused once; then the deletion of the previous slice has not finished yet.
  for text in ("503 UNAVAILABLE", "ALREADY_EXISTS: sn-1"):
    script = Script(reports=tuple(run), fail=(("resources create", 1, text, 1),), fail_after=1)
    done = tpu_vm(tmp_path / text[:3], *RETRYING, script=script)
    assert done.returncode == outcomes.DONE, done.stderr
    assert done.cloud == done.cloud | {"exists": False, "created": 2}


@pytest.mark.parametrize(("reports", "status"), [(["stopped"] * 4, outcomes.STOPPED), ("DELETED", outcomes.WRONG)])
def test_a_run_that_was_stopped_or_deleted_is_not_restarted(tmp_path, reports, status):
  done = tpu_vm(tmp_path, *RETRYING, script=Script(reports=(["running"] * 4, reports)))
  assert done.returncode == status, done.stderr
  assert done.cloud == done.cloud | {"exists": False, "created": 1}


def test_google_cloud_may_not_answer_for_a_while(tmp_path):
  """`up` waits for an hour before it gives up a slice that trains; other commands fail after three attempts."""
  done = tpu_vm(tmp_path / "up", *RETRYING, script=Script(reports=(["running"] * 4, "OFFLINE", ["running"] * 4)))
  assert done.returncode == outcomes.DONE, done.stderr
  assert done.cloud == done.cloud | {"exists": False, "created": 1}
  assert done.stdout.count("trying again when Google Cloud answers") == 5
  script = Script(fail=(("resources describe", 1, "503 UNAVAILABLE", 5),), fail_after=1)
  assert tpu_vm(tmp_path / "wait", "up", script=script).returncode == outcomes.DONE
  tpu_vm(tmp_path / "status", "create", script=Script(reports=("OFFLINE",)))
  done = tpu_vm(tmp_path / "status", "status")
  assert (done.returncode, done.stderr.count("no answer from Google Cloud")) == (outcomes.FAILED, 1)


def test_a_log_line_may_be_any_bytes(tmp_path):
  done = tpu_vm(tmp_path, "up", script=Script(reports=(["running | \udcff\udcfe"] * 4,)))
  assert done.returncode == outcomes.DONE, done.stderr
  assert "4 running; \N{REPLACEMENT CHARACTER}" in done.stdout


def test_two_launchers_of_one_name_use_separate_archives(tmp_path):
  runs = [tpu_vm(tmp_path / name, "up", script=Script()) for name in ("a", "b")]
  archives = [{call[5] for call in done.calls if call[4] == "scp"} for done in runs]
  assert len(archives[0] | archives[1]) == 2
  assert not any(pathlib.Path(path).exists() for path in archives[0] | archives[1])


def test_deleting_a_slice_that_does_not_exist_fails(tmp_path):
  done = tpu_vm(tmp_path, "delete", "--yes", script=Script())
  assert done.returncode == outcomes.WRONG
  assert "there is no slice named sn-1 in us-central1-a" in done.stderr


def test_ssh_that_fails_on_one_worker_is_retried(tmp_path):
  done = tpu_vm(tmp_path, "up", script=Script(fail=(("worker.sh setup", 255, "[2] timed out", 2),)))
  assert done.returncode == 0, done.stderr
  assert verbs(done).count("setup") == 3


def test_a_worker_that_never_answers_is_named_and_the_slice_replaced(tmp_path):
  script = Script(
    fail=(("worker.sh setup", 255, "[2] timed out", 3), ("--worker=2 .*--command=true", 255, "timed out", 1))
  )
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == 0, done.stderr
  assert "worker 2 of 4 (counted from 0) cannot be reached" in done.stdout
  assert [verb for verb in verbs(done) if verb.startswith("probe")] == [f"probe {i}" for i in range(4)]
  assert done.cloud == done.cloud | {"exists": False, "created": 2}


def interrupted(folder, at, number, read=True):
  """Runs `up`, sends it a signal once a call contains `at`, and returns the process, which has ended.

  Args:
    read: whether anybody reads the output.
  """
  line = [sys.executable, "-S", str(ROOT / "launch/tpu_vm"), "up", "--name=sn-1", "--zone=us-central1-a"]
  line += ["--type=v5litepod-16", "--commit=HEAD", "--poll_seconds=0.05", "--", *TRAINING]
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
  # Restore the default handlers: if the tests run under nohup, the launcher would inherit that signals are ignored.
  line = ["env", "--default-signal=INT,HUP", *line]
  with subprocess.Popen(line, env=stand_in.environment(folder), text=True, **pipes) as process:
    for _ in range(1200):
      if any(at in a for call in stand_in.calls(folder) for a in call):
        break
      time.sleep(0.05)
    if not read:
      process.stdout.close()
      process.stderr.close()
    process.send_signal(number)
    process.wait(timeout=60)
  return process


def test_an_interrupt_waits_for_the_answer_to_a_request(tmp_path):
  """A request continues without its caller: a slice deleted before the answer would still be created."""
  stand_in.install(tmp_path, Script(create_seconds=1.5))
  process = interrupted(tmp_path, "create", signal.SIGINT)
  time.sleep(1.5)
  assert process.returncode == 130
  assert stand_in.cloud(tmp_path) == stand_in.cloud(tmp_path) | {"created": 1, "exists": False}


@pytest.mark.parametrize(("number", "read"), [(signal.SIGTERM, True), (signal.SIGINT, False), (signal.SIGHUP, False)])
def test_an_interrupt_deletes_the_slice(tmp_path, number, read):
  """Also if nobody reads the output any more, as after `| tee` has ended or in a closed terminal."""
  stand_in.install(tmp_path, Script(reports=(["running"] * 4,) * 10_000))
  process = interrupted(tmp_path, "worker.sh report", number, read)
  assert process.returncode == 130
  assert not stand_in.cloud(tmp_path)["exists"]


def test_the_error_for_a_slice_that_cannot_be_deleted_names_the_command(tmp_path):
  script = Script(reports=("PREEMPTED",), fail=(("queued-resources delete", 1, "UNAVAILABLE", 9),))
  done = tpu_vm(tmp_path, *RETRYING, script=script)
  assert done.returncode == outcomes.STILL_BILLED
  assert done.cloud["created"] == 1  # no second slice
  assert verbs(done).count("delete") == 3
  assert "delete it: gcloud compute tpus queued-resources delete sn-1 --zone=us-central1-a --force" in done.stderr


def test_keep_leaves_the_slice_and_reports_it(tmp_path):
  script = Script(fail=(("worker.sh setup", 1, "broken", 9),))
  done = tpu_vm(tmp_path, *RETRYING, "--keep", script=script)
  assert done.returncode == outcomes.FAILED
  assert done.cloud["exists"]
  assert "kept, and billed; delete it: gcloud" in done.stdout
  done = tpu_vm(tmp_path / "done", "up", "--keep", script=Script())
  assert done.returncode == outcomes.DONE
  assert done.cloud["exists"]
  assert "kept, and billed; delete it: gcloud" in done.stdout


def test_an_existing_slice_of_that_name_is_left_alone(tmp_path):
  tpu_vm(tmp_path, "create", script=Script())
  for command in ("up", "create"):
    done = tpu_vm(tmp_path, command)
    assert done.returncode == outcomes.WRONG
    assert "--name=sn-1 exists already (ACTIVE)" in done.stderr
    assert done.cloud["exists"]
  race = tmp_path / "race"  # created between the check and the request
  done = tpu_vm(race, "up", script=Script(fail=(("resources create", 1, "ALREADY_EXISTS: sn-1", 1),)))
  assert done.returncode == outcomes.STILL_BILLED and "did not exist a moment ago" in done.stderr
  assert "delete" not in verbs(done)


def test_delete_asks_first(tmp_path):
  tpu_vm(tmp_path, "create", script=Script())
  for answer in ("", "n\n"):
    done = tpu_vm(tmp_path, "delete", input=answer)
    assert done.returncode == outcomes.WRONG
    assert done.cloud["exists"]
  assert tpu_vm(tmp_path, "delete", input="y\n").returncode == 0
  tpu_vm(tmp_path, "create")
  done = tpu_vm(tmp_path, "delete", "--yes")
  assert done.returncode == 0
  assert not done.cloud["exists"]


def test_step_by_step(tmp_path):
  script = Script(reports=(["idle"] * 4, ["running"] * 4, ["running"] * 3 + ["exited 75"], ["exited 75"] * 4))
  assert tpu_vm(tmp_path, "create", script=script).returncode == 0
  assert tpu_vm(tmp_path, "setup").returncode == 0
  done = tpu_vm(tmp_path, "run")
  assert done.returncode == 0, done.stderr
  assert verbs(done)[-4:] == ["report", "scp", "unpack", "start"]
  done = tpu_vm(tmp_path, "run")
  assert (done.returncode, done.stderr.count("stop it first")) == (outcomes.WRONG, 1)
  assert tpu_vm(tmp_path, "status").returncode == outcomes.RUNNING
  done = tpu_vm(tmp_path, "stop")
  assert "still exists, and is billed" in done.stdout
  assert tpu_vm(tmp_path, "status").returncode == outcomes.PREEMPTED
  assert tpu_vm(tmp_path, "logs", "--worker=3", "--lines=7").returncode == 0
  assert {"--worker=3", f"--command=bash {CHECKOUT}/launch/worker.sh log 7"} <= set(stand_in.calls(tmp_path)[-1])
  assert stand_in.cloud(tmp_path)["exists"]


def test_waiting_is_bounded(tmp_path):
  done = tpu_vm(tmp_path, "create", "--wait_minutes=0", script=Script(states=("WAITING_FOR_RESOURCES",) * 99))
  assert done.returncode == outcomes.FAILED
  assert "not ACTIVE after --wait_minutes=0" in done.stderr
  assert not done.cloud["exists"]


def test_training_is_bounded(tmp_path):
  done = tpu_vm(tmp_path, *RETRYING, "--max_hours=0", script=Script(reports=(["running"] * 4,) * 99))
  assert done.returncode == outcomes.FAILED
  assert verbs(done)[-3:] == ["report", "stop", "delete"]


def test_outcomes_of_workers():
  table = [
    (["running", "running"], outcomes.RUNNING),
    (["exited 0", "running"], outcomes.RUNNING),
    (["exited 75", "running"], outcomes.RUNNING),  # the other worker is still saving
    (["exited 75", "exited 0"], outcomes.PREEMPTED),
    (["exited 0", "exited 0"], outcomes.DONE),
    (["exited 1", "running"], outcomes.FAILED),
    (["exited 137", "exited 75"], outcomes.FAILED),
    (["lost", "exited 0"], outcomes.FAILED),
    (["idle"], outcomes.FAILED),
    (["exited 2", "exited 1", "running"], outcomes.WRONG),
  ]
  for states, wanted in table:
    assert outcomes.of_workers(states) == wanted, states
