"""A detector's run is as robust as a classifier's: killed, it ends in the same bits; processes share its evaluation."""

import json
import signal
import subprocess
import sys

import pytest

from shufflenet_jax.checkpoints import checkpoint
from tests.chaos import runs

pytestmark = pytest.mark.chaos

FIELDS = {
  "model.repeats": "(1,1,1)",
  "model.num_classes": 3,
  "model.lowering": "reference",
  "data.name": "scenes",
  "data.short_side": 48,
  "data.long_side": 64,
  "data.image_size": 64,
  "data.eval_resize": 64,
  "detection.anchor_sizes": "(16,32)",
  "detection.rois": 16,
  "detection.proposals": 20,
  "num_train_steps": 16,
  "log_every_steps": 1,
  "eval_every_steps": 8,
  "checkpoint_every_steps": 2,
  "optimizer.warmup_steps": 2,
}


def arguments(workdir, scenes):
  fields = FIELDS | {"data.data_dir": scenes}
  return [
    "--config=configs/boxes.py:scale=0.25", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in fields.items())
  ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, scenes):
  """The work directory of an undisturbed run."""
  workdir = tmp_path_factory.mktemp("detector") / "whole"
  run(workdir, scenes)
  return workdir


def run(workdir, scenes):
  command = [sys.executable, "-m", "shufflenet_jax.train", *arguments(workdir, scenes)]
  subprocess.run(command, cwd=runs.ROOT, env=runs.environment(scenes.parent / "compiled"), check=True, timeout=300)


def killed_at(step, workdir, scenes):
  """Starts the run and kills it as soon as it prints that step."""
  command = [sys.executable, "-u", "-m", "shufflenet_jax.train", *arguments(workdir, scenes)]
  environment = runs.environment(scenes.parent / "compiled")
  with subprocess.Popen(command, cwd=runs.ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
    assert any(line.startswith(f"step {step}/") for line in process.stdout)
    process.send_signal(signal.SIGKILL)


def test_a_killed_detector_ends_in_the_same_bits(whole, scenes, tmp_path):
  for step in (3, 9, 14):
    killed_at(step, tmp_path, scenes)
  run(tmp_path, scenes)
  ended, expected = checkpoint.find(str(tmp_path)), checkpoint.find(str(whole))
  assert ended.step == expected.step == 16
  runs.assert_same_arrays(ended.read_arrays(), expected.read_arrays())


def test_two_processes_find_the_same_average_precision(whole, scenes):
  figures = []
  for command in (
    [sys.executable, "-m", "shufflenet_jax.evaluate", f"--checkpoint={whole}"],
    ["launch/local.sh", "2", "evaluate", "--", f"--checkpoint={whole}"],
  ):
    environment = runs.environment(scenes.parent / "compiled")
    done = subprocess.run(command, cwd=runs.ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures.append(json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))))
  alone, together = figures
  assert alone["examples"] == 5 and alone["ap"] is not None
  assert together == alone
