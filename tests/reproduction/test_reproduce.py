"""The command: whole, killed and started again, and with wrong input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import UserError
from shufflenet_jax.reproduction import results
from tests.commands import ROOT, command
from tests.reproduction.made import result

SHORT = [
  "--config=configs/quickstart.py", "--tables=3", "--scales=0.25", "--only=g3", "--seeds=2",
  "--config.model.repeats=1,1,1", "--config.num_train_steps=12", "--config.optimizer.warmup_steps=2",
  "--config.log_every_steps=4", "--config.eval_every_steps=6", "--config.checkpoint_every_steps=3",
]  # fmt: skip
COLUMNS = ("cell", "seed", "top1", "top5", "loss", "steps", "images", "multiply_adds", "config")


def reproduce(workdir, data_dir, *more):
  return command("reproduce", *SHORT, f"--workdir={workdir}", f"--config.data.data_dir={data_dir}", *more)


def trained_alike(workdir):
  """The lines of results.jsonl, without what time and machine determine."""
  lines = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
  return [{name: line[name] for name in COLUMNS} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
  workdir = tmp_path_factory.mktemp("whole")
  ended = reproduce(workdir, data_dir)
  assert ended.returncode == 0, ended.stderr
  assert "run 4 of 4: ShuffleNet 0.25x g=3, seed 1; about" in ended.stdout
  return workdir


def test_each_run_has_a_line(whole):
  runs = [(line["cell"], line["seed"]) for line in trained_alike(whole)]
  cell = "shufflenet_0.25x_g3"
  assert sorted(runs) == [(cell, 0), (cell, 1), (f"{cell}_noshuffle", 0), (f"{cell}_noshuffle", 1)]
  first, *_ = results.read(str(whole / "results.jsonl"))
  figures = command("evaluate", f"--checkpoint={whole}/{first.cell}/seed_{first.seed}")
  assert json.loads(figures.stdout.splitlines()[-1])["top1"] == first.top1
  assert first.images == 12 * 64 and first.seconds > 0
  assert "cores, " in first.hardware and first.versions["jax"]


@pytest.mark.chaos
def test_killed_and_started_again_it_gives_the_same_results(whole, data_dir, tmp_path):
  """Killed in the second run, between its first checkpoint and its end; and again, before the line is written."""
  arguments = [*SHORT, f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}"]
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  process = subprocess.Popen([sys.executable, "-m", "shufflenet_jax.reproduce", *arguments], cwd=ROOT, env=environment)
  second = tmp_path / whole_order(whole)[1] / "checkpoints"
  deadline = time.monotonic() + 200
  while not (second.is_dir() and any(name.name.isdigit() for name in second.iterdir())):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  done = len((tmp_path / "results.jsonl").read_text().splitlines())
  assert done in (1, 2)
  ended = reproduce(tmp_path, data_dir)
  assert ended.returncode == 0, ended.stderr
  assert f"run {done + 1} of 4" in ended.stdout and f"run {done} of 4" not in ended.stdout
  lines = (tmp_path / "results.jsonl").read_text().splitlines(True)
  (tmp_path / "results.jsonl").write_text("".join(lines[:3]))  # as if killed before the last line was written
  again = reproduce(tmp_path, data_dir)
  assert again.returncode == 0, again.stderr
  assert "written to" in again.stdout and "run 4 of 4" not in again.stdout
  assert trained_alike(tmp_path) == trained_alike(whole)
  assert "all 4 runs are done" in reproduce(tmp_path, data_dir).stdout


def whole_order(workdir):
  return [f"{line['cell']}/seed_{line['seed']}" for line in trained_alike(workdir)]


def test_list_and_report_train_nothing(whole, data_dir):
  before = sorted(path.name for path in whole.iterdir())
  listed = reproduce(whole, data_dir, "--list", "--seeds=3")
  assert listed.returncode == 0, listed.stderr
  assert "4 of 6 runs are done" in listed.stdout and " to go" in listed.stdout
  assert sorted(path.name for path in whole.iterdir()) == before
  reported = reproduce(whole, data_dir, "--report")
  assert reported.returncode == 0, reported.stderr
  assert "without shuffle is " in (whole / "results.md").read_text()


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--tables=1"], "--tables=1 is not a table of errors on ImageNet"),
    (["--tables=three"], "--tables=three must be numbers"),
    (["--config.model.groups=2"], "--config.model.groups cannot be set: the tables' networks and --seeds determine it"),
    (["--list", "--report"], "--list and --report exclude each other"),
    (["--config.data.name=tiny_imagenet"], "dataset 'tiny_imagenet' is not in "),
    (["--config.num_train_steps=24"], "has a result of .* with another config .num_train_steps: 12 then, 24 now"),
    (["--config.batch_size=32", "--seeds=1"], "was begun with another config .batch_size: 64 then, 32 now"),
    (["--launch"], "must be in a bucket"),
  ],
)
def test_wrong_input_is_one_line_and_trains_nothing(whole, data_dir, tmp_path, more, message):
  own_results = [f"--results={whole}/results.jsonl"] if "num_train_steps" in more[0] else []
  if "batch_size" in more[0]:
    shutil.copytree(whole / "shufflenet_0.25x_g3", tmp_path / "w/shufflenet_0.25x_g3")
    shutil.rmtree(tmp_path / "w/shufflenet_0.25x_g3/seed_0/checkpoints")
  ended = reproduce(tmp_path / "w", data_dir, *more, *own_results)
  assert ended.returncode == 2
  assert ended.stderr.strip().splitlines()[-1].startswith("error: ")
  assert re.search(message, ended.stderr), ended.stderr
  assert not any((tmp_path / "w").glob("*/seed_0/checkpoints"))


LINE = json.dumps({"cell": "x", "seed": 0})


@pytest.mark.parametrize("damage", [LINE, "{", "[]", '{"cell": "a', "null"])
def test_a_damaged_line_is_named(tmp_path, damage):
  path = tmp_path / "results.jsonl"
  results.write(str(path), [result("resnet_13M", 0, 0.4)])
  path.write_text(path.read_text() + damage + "\n")
  with pytest.raises(UserError, match=r"line 2 of .*results.jsonl is damaged: .*; remove it"):
    results.read(str(path))


def test_results_come_back_and_a_repeated_run_is_refused(tmp_path):
  path = tmp_path / "results.jsonl"
  written = [result("resnet_13M", 0, 0.4), result("resnet_13M", 1, 0.41, loss=None)]
  results.write(str(path), written)
  assert results.read(str(path)) == written
  path.write_text(path.read_text() * 2)
  with pytest.raises(UserError, match="lines 1 and 3 of .* are both resnet_13M, seed 0; remove one"):
    results.read(str(path))


def test_what_does_not_change_the_result_may_differ():
  done = result("resnet_13M", 0, 0.4)
  config = checkpoint.from_json(done.config)
  config.seed, config.data.data_dir, config.log_every_steps = 5, "/elsewhere", 7
  results.check_same_recipe("results.jsonl", [done], {"resnet_13M": checkpoint.to_json(config)})
  config.optimizer.learning_rate = 0.3
  with pytest.raises(UserError, match=r"another config \(optimizer.learning_rate: 0.5 then, 0.3 now\)"):
    results.check_same_recipe("results.jsonl", [done], {"resnet_13M": checkpoint.to_json(config)})
