"""The benchmarks run as RESULTS.md gives their commands, at their smallest. No time is looked at."""

import json
import os
import subprocess
import sys

import pytest

from shufflenet_jax.data.prepare.dataset import prepare
from tests.commands import ROOT


def run(name, *flags):
  """`python -m benchmarks.name`."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  return subprocess.run(
    [sys.executable, "-m", f"benchmarks.{name}", *flags],
    cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
  )  # fmt: skip


def benchmark(name, *flags):
  """The lines of `python -m benchmarks.name`, which must succeed."""
  done = run(name, *flags)
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.mark.parametrize(
  ("name", "flag", "wrong"),
  [
    ("train_step", "--rounds=0", "argument --rounds: 0 must be 1 or more"),
    ("train_step", "--scale=nan", "argument --scale: nan must be 0.05 or more"),
    ("train_step", "--batch=1.5", "argument --batch: invalid int value: '1.5'"),
    (
      "deployed",
      "--json=/absent/a.json",
      "argument --json: /absent/a.json cannot be written: there is no folder /absent",
    ),
    ("deployed", "--plot=/tmp", "argument --plot: /tmp is a folder; name a file"),
  ],
)
def test_a_wrong_flag_is_named_before_anything_is_measured(name, flag, wrong):
  done = run(name, flag)
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.splitlines()[-1].endswith(f"error: {wrong}")


@pytest.mark.parametrize(
  ("network", "field", "lowerings"),
  [
    ("shufflenet_v1", "--scale=0.25", ["auto", "reference"]),
    ("mobilenet_v1", "--scale=0.25", ["auto"]),
    ("resnet", "--mflops=13", ["auto"]),
  ],
)
def test_train_step_times_every_formulation(tmp_path, network, field, lowerings):
  flags = ("--rounds=1", "--seconds=0", "--batch=2", "--image_size=33", f"--lowerings={','.join(lowerings)}")
  benchmark("train_step", f"--network={network}", field, *flags, f"--json={tmp_path}/figures.json")
  rates = json.loads((tmp_path / "figures.json").read_text())["images_per_second"]
  assert set(rates) == {"train", "infer"}
  for by_network in rates.values():
    assert {f"jax {lowering}" for lowering in lowerings} <= set(by_network) and min(by_network.values()) > 0


@pytest.mark.torch
@pytest.mark.parametrize(("network", "field"), [("shufflenet_v1", "--scale=0.5"), ("mobilenet_v1", "--scale=0.25")])
def test_train_step_compares_with_pytorch(network, field):
  flags = ("--rounds=1", "--seconds=0", "--batch=2", "--image_size=193", "--lowerings=auto")
  lines = benchmark("train_step", f"--network={network}", field, *flags)
  assert len([line for line in lines if line.endswith("1.00 x pytorch")]) == 2  # in training and in inference


def test_small_sets_reads_every_size():
  assert [line.split(":")[0].strip() for line in benchmark("small_sets", "--sizes=2,3", "--seconds=0")] == [
    "2 pictures",
    "3 pictures",
  ]


def test_in_memory_times_both_kinds_of_data(data_dir, tmp_path):
  flags = ("--config=configs/quickstart.py", f"--data_dir={data_dir}", "--rounds=1", "--seconds=0")
  benchmark("in_memory", *flags, f"--json={tmp_path}/figures.json")
  rates = json.loads((tmp_path / "figures.json").read_text())["images_per_second"]
  assert set(rates) == {"training, stream", "training, memory", "batches, stream", "batches, memory"}


SMALLEST = ("--name=flowers", "--rounds=1", "--batches=1", "--epochs=1")


def test_input_pipeline_times_every_reader(photos, options, tmp_path):
  (photos / "train/rose/old/1.png").unlink()
  prepare(options)
  flags = (*SMALLEST, f"--data_dir={options.to}", "--resized=flowers", f"--json={tmp_path}/figures.json")
  lines = benchmark("input_pipeline", *flags)
  figures = json.loads((tmp_path / "figures.json").read_text())
  assert set(figures["images_per_second"]) == {"limit", "recipe", "stream", "careful", "resized"}
  assert len(figures["memory_mib"]) == 1 and lines[-1].startswith("figures in ")


def test_input_pipeline_ends_if_a_reader_fails(options):
  prepare(options)  # one picture is a PNG, which the usual recipe cannot decode
  done = run("input_pipeline", *SMALLEST, f"--data_dir={options.to}")
  assert done.returncode == 1 and done.stderr.splitlines()[-1] == "recipe has failed; its error is above"
