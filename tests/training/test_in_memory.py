"""Training on pictures in memory: the same on any number of devices, resumable, and without TensorFlow."""

import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.data import opening
from shufflenet_jax.distributed import mesh
from shufflenet_jax.models import build
from shufflenet_jax.training import batches, evaluation
from shufflenet_jax.training.loop import train
from tests.commands import ROOT, command

ONE = jax.devices()[:1]


@pytest.fixture
def in_memory(config):
  config.data.in_memory = True
  return config


def first_batches(config, devices, steps=4, start_step=0):
  over = mesh.data_mesh(devices)
  task = tasks.build(build.network(config.model), config)
  made = batches.for_training(opening.open_split(config, "train"), config, task, over)
  return [jax.device_get(made.to_devices(batch)) for batch in itertools.islice(made.host(start_step), steps)]


def test_batches_are_the_same_on_1_and_4_devices_and_after_a_resume(in_memory):
  in_memory.data.flip, in_memory.data.color_jitter = True, 0.3
  expected = first_batches(in_memory, ONE)
  for devices, start in ((jax.devices(), 0), (ONE, 2)):
    for batch, other in zip(first_batches(in_memory, devices, start_step=start), expected[start:]):
      np.testing.assert_array_equal(batch["label"], other["label"])
      np.testing.assert_array_equal(batch["image"], other["image"])


def test_training_resumes_to_the_same_bits_and_the_checkpoint_evaluates_alike(in_memory, tmp_path):
  whole, figures = train(in_memory, str(tmp_path / "whole"), ONE)
  train(in_memory, str(tmp_path / "parts"), ONE, stop_after_step=7)
  parts, _ = train(in_memory, str(tmp_path / "parts"), ONE)
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  found = checkpoint.find(str(tmp_path / "whole"))
  assert evaluation.evaluate_checkpoint(found, found.config, devices=ONE) == figures | {"step": 12}


def test_streamed_evaluation_of_the_same_checkpoint_agrees(run, config):
  """Crops differ by rounding alone, so at most a few answers of 355."""
  found = checkpoint.find(run.workdir)
  config.data.in_memory = True
  in_memory = evaluation.evaluate_checkpoint(found, config, devices=ONE)
  assert in_memory["examples"] == 355
  assert abs(in_memory["top1"] - run.figures["top1"]) <= 4 / 355
  assert in_memory["loss"] == pytest.approx(run.figures["loss"], rel=0.01)


WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu"):
  sys.modules[name] = None  # importing it fails, and importlib does not find it
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def without_tensorflow(module, *arguments):
  """`python -m shufflenet_jax.module` in a process in which TensorFlow, TFDS and clu cannot be imported."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  return subprocess.run(
    [sys.executable, "-c", WITHOUT_TENSORFLOW, f"shufflenet_jax.{module}", *map(str, arguments)],
    cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
  )  # fmt: skip


def test_arrays_train_evaluate_and_resume_without_tensorflow(tmp_path):
  data, workdir = tmp_path / "data", tmp_path / "w"
  made = command("data.export", "--config=configs/quickstart.py", "--arrays", f"--to={data}")
  assert made.returncode == 0, made.stderr
  with np.load(data / "train.npz") as train_split, np.load(data / "test.npz") as test_split:
    assert (train_split["images"].shape, test_split["images"].shape) == ((1442, 8, 8, 3), (355, 8, 8, 3))
  options = [
    "--config=configs/quickstart.py:scale=0.25,groups=3", "--config.model.repeats=1,1,1", f"--workdir={workdir}",
    "--config.data.name=arrays", f"--config.data.data_dir={data}", "--config.optimizer.warmup_steps=2",
  ]  # fmt: skip
  for steps in (4, 8):
    trained = without_tensorflow("train", *options, f"--config.num_train_steps={steps}")
    assert trained.returncode == 0, trained.stderr
  assert "resuming from" in trained.stdout
  assert "note: no TensorBoard files, because" in trained.stdout
  assert not list(workdir.glob("events*"))
  assert {"metrics.jsonl", "curves.png", "config.json", "checkpoints"} <= {path.name for path in workdir.iterdir()}
  evaluated = without_tensorflow("evaluate", f"--checkpoint={workdir}")
  assert evaluated.returncode == 0, evaluated.stderr
  assert '"examples": 355' in evaluated.stdout.splitlines()[-1]
  for refused in (
    without_tensorflow("train", "--config=configs/quickstart.py", f"--workdir={tmp_path}/other"),
    without_tensorflow("predict", f"--checkpoint={workdir}", "picture.jpg"),
  ):
    assert refused.returncode == 2
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("error: this needs TensorFlow, which is not installed")
    assert last.endswith("training and evaluation read arrays: --config.data.name=arrays, see README.md")
