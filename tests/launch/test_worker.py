"""Runs launch/worker.sh: each worker is a folder, training is a small script; recoveries from end to end."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import pytest

from launch import outcomes, staging
from launch.gcloud import CHECKOUT
from tests.launch import stand_in
from tests.launch.launcher import AWKWARD, ROOT, TRAINING, tpu_vm
from tests.launch.stand_in import Script

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="the workers are Linux machines")

# Replaces a worker's Python. It records its arguments and ends with the next status in the file `ends`; "wait" instead
# means at SIGTERM, with 75, and "deaf" that SIGTERM is ignored. Copies of the dataset end as `copy_ends` says, where
# "wait-N" means at SIGTERM, with N.
PYTHON = """#!/bin/bash
if [ "$1" = - ]; then cat >/dev/null; echo "jax: $2 chips on $3 hosts"; exit; fi
if [ "$3" = shufflenet_jax.data.stage ]; then
  printf '%s\n' "$@" >>"$HOME/copy_arguments"
  how=$(sed -n "$(grep -c '^-u$' "$HOME/copy_arguments")p" "$HOME/copy_ends")
  echo "copying: $how"
  if [ "${how%-*}" = wait ]; then
    trap 'exit ${how#*-}' TERM
    while :; do sleep 0.05; done
  fi
  exit "$how"
fi
printf '%s\\n' "$@" >"$HOME/arguments"
n=$(cat "$HOME/starts" 2>/dev/null || echo 0)
echo $((n + 1)) >"$HOME/starts"
how=$(sed -n "$((n + 1))p" "$HOME/ends")
echo "training, start $((n + 1)): $how"
if [ "$how" = deaf ]; then
  trap "" TERM
  while :; do sleep 0.05; done
fi
if [ "$how" = wait ]; then
  trap 'echo TERM >>"$HOME/signals"; exit 75' TERM
  while :; do sleep 0.05; done
fi
exit "$how"
"""


@pytest.fixture
def slice_of_two(tmp_path, request):
  """A v5p-16, which has two workers: a folder with two home directories."""
  stand_in.install(tmp_path, Script(workers=2, on_workers=True, reports=getattr(request, "param", ())))
  for i in range(2):
    venv = tmp_path / f"worker{i}/shufflenet_jax_venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").write_text(PYTHON)
    (venv / "bin/python").chmod(0o755)
    (tmp_path / f"worker{i}/bin").mkdir()
    (tmp_path / f"worker{i}/bin/gcloud").write_text('#!/bin/sh\necho "$*" >"$HOME/copied"\n')
    (tmp_path / f"worker{i}/bin/gcloud").chmod(0o755)
    # The stamp that setup leaves, so that nothing is installed.
    stamp = subprocess.run(["sha256sum", "requirements.txt"], cwd=ROOT, capture_output=True, text=True).stdout
    (venv / "installed").write_text(stamp)
  yield tmp_path
  for path in tmp_path.glob("worker*/shufflenet_jax_run/pid"):
    with contextlib.suppress(ProcessLookupError):
      os.kill(int(path.read_text()), signal.SIGKILL)


def ends(folder: pathlib.Path, *per_worker: str, file: str = "ends"):
  for i, lines in enumerate(per_worker):
    (folder / f"worker{i}/{file}").write_text("\n".join(lines.split()) + "\n")


def launch(folder, *flags, **options):
  # With uncommitted changes, because worker.sh may just have been edited.
  dirty = ["--allow_dirty"] if flags[0] in ("up", "setup", "run") else []
  return tpu_vm(folder, *flags, *dirty, kind="v5p-16", **options)


def test_arguments_arrive_unchanged(slice_of_two):
  ends(slice_of_two, "0", "0")
  done = launch(slice_of_two, "up", "--bucket=gs://my-bucket/logs", training=TRAINING + AWKWARD)
  assert done.returncode == 0, done.stderr + done.stdout
  for i in range(2):
    arguments = (slice_of_two / f"worker{i}/arguments").read_text()
    wanted = ["-u", "-m", "shufflenet_jax.train", "--distributed", *TRAINING, *AWKWARD]
    assert arguments == "".join(f"{argument}\n" for argument in wanted)
    copied = (slice_of_two / f"worker{i}/copied").read_text()
    assert copied.startswith("storage cp ") and " gs://my-bucket/logs/sn-1/" in copied
  assert not done.cloud["exists"]


def test_the_log_names_the_reason_why_it_is_not_copied(slice_of_two):
  ends(slice_of_two, "0", "0")
  (slice_of_two / "worker1/bin/gcloud").write_text(
    "#!/bin/sh\necho 'WARNING: x' >&2; echo 'ERROR: 403 denied' >&2; exit 1\n"
  )
  for command in ("create", "setup"):
    assert launch(slice_of_two, command).returncode == 0
  for _ in range(2):
    assert launch(slice_of_two, "run", "--bucket=gs://my-bucket/logs").returncode == 0
    while launch(slice_of_two, "status").returncode == outcomes.RUNNING:
      pass
  logs = [(slice_of_two / f"worker{i}/shufflenet_jax_run/log.txt").read_text() for i in range(2)]
  assert "not copied" not in logs[0]
  assert logs[1].count("the log is not copied to gs://my-bucket/logs/sn-1: ERROR: 403 denied\n") == 1


def test_a_failure_then_a_preemption_then_done(slice_of_two):
  ends(slice_of_two, "1 75 0", "wait 75 0")
  done = launch(slice_of_two, "up", "--retry=2")
  assert done.returncode == 0, done.stderr + done.stdout
  assert done.cloud == done.cloud | {"exists": False, "created": 2}
  assert [(slice_of_two / f"worker{i}/starts").read_text() for i in range(2)] == ["3\n", "3\n"]
  assert (
    done.stdout.index("the same slice") < done.stdout.index("a new slice") < done.stdout.index("deleted sn-1\nabout")
  )


@pytest.mark.parametrize("slice_of_two", [(None, None, "PREEMPTED")], indirect=True)
def test_a_preemption_sends_sigterm_to_training(slice_of_two):
  ends(slice_of_two, "wait 0", "wait 0")
  done = launch(slice_of_two, "up", "--retry=1")
  assert done.returncode == 0, done.stderr + done.stdout
  assert done.cloud == done.cloud | {"exists": False, "created": 2}
  assert [(slice_of_two / f"worker{i}/starts").read_text() for i in range(2)] == ["2\n", "2\n"]
  assert [(slice_of_two / f"worker{i}/signals").read_text() for i in range(2)] == ["TERM\n", "TERM\n"]


def test_a_stop_without_a_checkpoint_is_reported(slice_of_two):
  ends(slice_of_two, "wait", "deaf")
  for command in ("create", "setup", "run"):
    assert launch(slice_of_two, command).returncode == 0
  for i, state in enumerate(["stopped", "stopped without a checkpoint (status 137)"]):
    home = slice_of_two / f"worker{i}"
    stop = ["bash", "launch/worker.sh", "stop", "1"]
    done = subprocess.run(
      stop, env=os.environ | {"HOME": str(home)}, cwd=home / CHECKOUT, capture_output=True, text=True
    )
    assert done.stdout == f"{state}\n"
  done = launch(slice_of_two, "status")
  assert done.returncode == outcomes.STOPPED  # on request, so that it is not restarted
  assert "without a checkpoint" in done.stdout


def test_run_status_stop_and_a_lost_process(slice_of_two):
  ends(slice_of_two, "wait wait 3", "wait wait 3")
  assert launch(slice_of_two, "create").returncode == 0
  for command in ("status", "run"):
    assert "sn-1 is not set up" in launch(slice_of_two, command).stderr
  assert launch(slice_of_two, "setup").returncode == 0
  assert launch(slice_of_two, "status").returncode == outcomes.FAILED  # nothing was ever started
  assert launch(slice_of_two, "run").returncode == 0
  done = launch(slice_of_two, "status")
  assert done.returncode == outcomes.RUNNING
  assert "training, start 1: wait" in done.stdout
  assert "is training already" in launch(slice_of_two, "run").stderr
  again = ["bash", "launch/worker.sh", "start", ""]
  home = slice_of_two / "worker0"
  done = subprocess.run(
    again, env=os.environ | {"HOME": str(home)}, cwd=home / CHECKOUT, capture_output=True, text=True
  )
  assert done.stdout == "already running\n"
  assert (home / "starts").read_text() == "1\n"
  assert launch(slice_of_two, "stop").stdout.count("stopped\n") == 2
  assert launch(slice_of_two, "status").returncode == outcomes.STOPPED
  assert "training, start 1: wait" in launch(slice_of_two, "logs", "--worker=1").stdout

  assert launch(slice_of_two, "run").returncode == 0
  pid = int((home / "shufflenet_jax_run/pid").read_text())
  os.kill(os.getpgid(pid), signal.SIGKILL)  # the script that waits for it, as when the VM restarts
  os.kill(pid, signal.SIGKILL)
  done = launch(slice_of_two, "status")
  assert "lost" in done.stdout
  assert done.returncode == outcomes.FAILED
  assert launch(slice_of_two, "stop").returncode == 0
  assert launch(slice_of_two, "run").returncode == 0
  assert launch(slice_of_two, "status").stdout.count("exited 3") == 2


DATA = "--config.data.data_dir=gs://my-bucket/data"
COPY = ["-u", "-m", "shufflenet_jax.data.stage", TRAINING[0], DATA, f"--to={staging.FOLDER}"]


def lines(path: pathlib.Path) -> list[str]:
  return path.read_text().splitlines()


def test_the_dataset_is_copied_before_training_reads_the_copy(slice_of_two):
  ends(slice_of_two, "0", "0")
  ends(slice_of_two, "0", "0", file="copy_ends")
  done = launch(slice_of_two, "up", "--stage_data", "--keep", training=[*TRAINING, DATA])
  assert done.returncode == 0, done.stderr + done.stdout
  for i in range(2):
    home = slice_of_two / f"worker{i}"
    assert lines(home / "copy_arguments") == COPY
    trained = ["--distributed", *TRAINING, DATA, f"--config.data.data_dir={staging.FOLDER}"]
    assert lines(home / "arguments") == ["-u", "-m", "shufflenet_jax.train", *trained]
    assert lines(home / "shufflenet_jax_run/log.txt")[1:] == ["copying: 0", "training, start 1: 0"]


def test_without_a_copy_there_is_no_training(slice_of_two):
  ends(slice_of_two, "0", "0")
  ends(slice_of_two, "2", "0", file="copy_ends")  # the dataset does not fit, for example
  done = launch(slice_of_two, "up", "--stage_data", "--retry=3", training=[*TRAINING, DATA])
  assert done.returncode == outcomes.WRONG
  assert "copying: 2" in done.stdout
  assert not (slice_of_two / "worker0/starts").exists()


def test_a_copy_that_failed_is_made_again(slice_of_two):
  ends(slice_of_two, "wait 0", "0")
  ends(slice_of_two, "0 0", "1 0", file="copy_ends")
  done = launch(slice_of_two, "up", "--stage_data", "--retry=1", training=[*TRAINING, DATA])
  assert done.returncode == 0, done.stderr + done.stdout
  assert lines(slice_of_two / "worker1/copy_arguments") == COPY * 2
  assert [(slice_of_two / f"worker{i}/starts").read_text() for i in range(2)] == ["2\n", "1\n"]


@pytest.mark.parametrize("status", [75, 0])  # 0: the copy was whole before it was told to stop
def test_a_stop_while_the_dataset_is_copied(slice_of_two, status):
  ends(slice_of_two, "0", "0")
  ends(slice_of_two, f"wait-{status}", f"wait-{status}", file="copy_ends")
  for command in ("create", "setup"):
    assert launch(slice_of_two, command).returncode == 0
  assert launch(slice_of_two, "run", "--stage_data", training=[*TRAINING, DATA]).returncode == 0
  done = launch(slice_of_two, "status")
  assert done.returncode == outcomes.RUNNING
  assert f"copying: wait-{status}" in done.stdout
  assert launch(slice_of_two, "stop").stdout.count("stopped\n") == 2
  assert not (slice_of_two / "worker0/starts").exists()


@pytest.mark.parametrize(
  ("file", "title"),
  [
    ("job", "launch/worker.sh"),  # between the copy and training, or during the last copy of the log
    ("pid", "shufflenet_jax.data.stage"),
    ("pid", "shufflenet_jax.train"),
  ],
)
def test_a_run_is_lost_only_without_any_of_its_processes(tmp_path, file, title):
  run = tmp_path / "shufflenet_jax_run"
  run.mkdir()
  ended = subprocess.Popen(["true"])
  ended.wait()
  (run / "pid").write_text(f"{ended.pid}\n")

  def state():
    report = ["bash", str(ROOT / "launch/worker.sh"), "report"]
    return subprocess.run(report, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True).stdout

  with subprocess.Popen(["bash", "-c", f"exec -a {title} sleep 60"]) as process:
    (run / file).write_text(f"{process.pid}\n")
    for _ in range(100):
      if pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(title.encode()):
        break
      time.sleep(0.05)
    found = state()
    process.kill()
    assert found == "state: running | \n"
  assert state() == "state: lost | \n"
