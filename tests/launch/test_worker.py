"""Runs launch/worker.sh: each worker is a folder, training is a small script; recoveries from end to end."""

import contextlib
import os
import pathlib
import signal
import subprocess

import pytest

from launch import outcomes
from launch.gcloud import CHECKOUT
from tests.launch import stand_in
from tests.launch.launcher import AWKWARD, ROOT, TRAINING, tpu_vm
from tests.launch.stand_in import Script

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="the workers are Linux machines")

# Replaces a worker's Python. It records its arguments and ends with the next status in the file `ends`; "wait" instead
# means at SIGTERM, with 75, and "deaf" that SIGTERM is ignored.
PYTHON = """#!/bin/bash
if [ "$1" = - ]; then cat >/dev/null; echo "jax: $2 chips on $3 hosts"; exit; fi
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


def ends(folder: pathlib.Path, *per_worker: str):
  for i, lines in enumerate(per_worker):
    (folder / f"worker{i}/ends").write_text("\n".join(lines.split()) + "\n")


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
