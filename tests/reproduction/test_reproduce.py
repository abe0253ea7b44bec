"""The command: whole, killed and started again, and with wrong input."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from shufflenet_jax import reproduce as reproduce_command
from shufflenet_jax import storage
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.reproduction import actions, results
from shufflenet_jax.training import loop
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
  assert " core" in first.hardware and first.versions["jax"]
  assert first.config["data"]["data_dir"] == ""


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


def test_finished_runs_are_collected_from_their_folders(whole, data_dir, tmp_path):
  """The hardware and the commit are those that trained them; --only takes no notice of an empty word."""
  shutil.copytree(whole, tmp_path / "w")
  os.remove(tmp_path / "w/results.jsonl")
  machine = tmp_path / "w/shufflenet_0.25x_g3/seed_0/machine.jsonl"
  machine.write_text(machine.read_text().replace(" core", " TPU"))
  collected = reproduce(tmp_path / "w", data_dir, "--collect", "--only=g3,")
  assert collected.returncode == 0, collected.stderr
  assert "4 results added" in collected.stdout
  assert sorted(map(str, trained_alike(tmp_path / "w"))) == sorted(map(str, trained_alike(whole)))
  found = {(r.cell, r.seed): r.hardware for r in results.read(str(tmp_path / "w/results.jsonl"))}
  assert "TPUs" in found["shufflenet_0.25x_g3", 0] and "cores" in found["shufflenet_0.25x_g3", 1]


def test_a_flag_that_repeats_a_default_still_overrides_a_cell(data_dir, tmp_path):
  """configs/imagenet.py crops small networks less; its default is 0.08."""
  arguments = ["--config=configs/imagenet.py", "--tables=3", "--scales=0.25", f"--workdir={tmp_path}", "--list"]
  values, _ = reproduce_command.command.parse(["reproduce", *arguments, "--config.data.min_crop_area=0.08"])
  assert {run.config.data.min_crop_area for run in actions.Wanted.from_flags(values).runs} == {0.08}
  values, _ = reproduce_command.command.parse(["reproduce", *arguments])
  assert {run.config.data.min_crop_area for run in actions.Wanted.from_flags(values).runs} == {0.49}


def test_a_run_that_fails_does_not_stop_the_others(data_dir, tmp_path, monkeypatch):
  arguments = [*SHORT, f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}", "--seeds=1"]
  values, _ = reproduce_command.command.parse(["reproduce", *arguments])
  train, begun = loop.train, []

  def fail_once(config, *args, **options):
    begun.append(config.model.shuffle)
    if len(begun) == 1:
      raise RunFailed("the loss is not finite")
    return train(config, *args, **options)

  monkeypatch.setattr(loop, "train", fail_once)
  with pytest.raises(RunFailed, match="1 runs failed: shufflenet_0.25x_g3_noshuffle, seed 0: the loss is not finite"):
    actions.train(actions.Wanted.from_flags(values))
  assert begun == ["none", "paper"]
  assert [r.cell for r in results.read(str(tmp_path / "results.jsonl"))] == ["shufflenet_0.25x_g3"]


def test_a_run_that_another_process_trains_is_left_to_it(data_dir, tmp_path, capsys):
  arguments = [*SHORT, f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}", "--seeds=1"]
  wanted = actions.Wanted.from_flags(reproduce_command.command.parse(["reproduce", *arguments])[0])
  first = tmp_path / "shufflenet_0.25x_g3_noshuffle/seed_0"
  first.mkdir(parents=True)
  with storage.locked(str(first)):
    actions.train(wanted)
    assert "1 of 2 runs are left to other processes" in capsys.readouterr().out
  assert not list(first.iterdir())
  assert [r.cell for r in results.read(str(tmp_path / "results.jsonl"))] == ["shufflenet_0.25x_g3"]
  actions.train(wanted)  # the other process has ended, without having trained it
  assert "all 2 runs are done" in capsys.readouterr().out
  assert len(results.read(str(tmp_path / "results.jsonl"))) == 2


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
    (["--tables="], "--tables= is empty; give some of the paper's tables"),
    (["--config.model.groups=2"], "--config.model.groups cannot be set: the tables' networks and --seeds determine it"),
    (["--tables=4", "--only=resnet"], "config.model.repeats: the network of resnet_13M has no such field"),
    (["--config=configs/quickstart.py:scale=0.5"], "give the file without :ARGUMENTS"),
    (["--results=/proc/none/r.jsonl"], "/proc/none cannot be written"),
    (["--list", "--report"], "--list and --report exclude each other"),
    (["--config.data.name=tiny_imagenet"], "dataset 'tiny_imagenet' is not in "),
    (["--config.num_train_steps=24"], "has a result of .* with another config .num_train_steps: 12 then, 24 now"),
    (["--config.batch_size=32", "--seeds=1"], "was begun with another config .batch_size: 64 then, 32 now"),
    (["--launch"], "must be in a bucket"),
    (["--report", "--results=absent/r.jsonl"], "absent/r.jsonl has no results to report"),
    (["--config=configs/boxes.py"], "--config=configs/boxes.py is of a detector"),
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


@pytest.mark.parametrize("damage", [LINE, "{", "[]", '{"cell": "a', "null", "<<<<<<< HEAD"])
def test_a_damaged_line_is_named(tmp_path, damage):
  path = tmp_path / "results.jsonl"
  results.write(str(path), [result("resnet_13M", 0, 0.4)])
  path.write_text(path.read_text() + damage + "\n")
  with pytest.raises(UserError, match=r"line 2 of .*results.jsonl is damaged \(.*\): .*; correct or remove it"):
    results.read(str(path))


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"top1": 41.0}, "top1=41.0 and top5=0.6 must be fractions"),
    ({"top1": float("nan")}, "must be fractions"),
    ({"top1": 0.7}, "the second the larger"),
    ({"seconds": float("nan")}, "seconds=nan and loss=2.5 must be finite"),
    ({"loss": float("inf")}, "loss=inf must be finite"),
    ({"seed": -1}, "a number is negative or 0"),
    ({"images": 0}, "images=0 are not those of the config"),
    ({"steps": 8000}, "steps=8000 and images=1024000 are not those of the config"),
    ({"config": {}}, "config.model has no field network"),
    ({"config": {"model": [1]}}, ""),
    ({"more": 1}, "more is not a field of a result"),
  ],
)
def test_values_that_cannot_be_are_damage(tmp_path, change, reason):
  path = tmp_path / "results.jsonl"
  path.write_text(json.dumps(dataclasses.asdict(result("resnet_13M", 0, 0.4)) | change) + "\n")
  with pytest.raises(UserError, match=f"line 1 of .*results.jsonl is damaged .*{reason}"):
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
  config.data.name, config.data.train_split = "arrays", "other"
  results.check_same_recipe("results.jsonl", [done], {"resnet_13M": checkpoint.to_json(config)})
  config.optimizer.learning_rate = 0.3
  with pytest.raises(UserError, match=r"another config \(optimizer.learning_rate: 0.2 then, 0.3 now\)"):
    results.check_same_recipe("results.jsonl", [done], {"resnet_13M": checkpoint.to_json(config)})
