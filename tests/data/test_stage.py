"""Copies of datasets: which files are copied, when a copy counts as whole, and what is wrong in one line."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from shufflenet_jax import progress, storage
from shufflenet_jax.data import needed_files, sources, staging
from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.errors import PREEMPTED, RunFailed, UserError
from tests.commands import ROOT, command
from tests.preparation import with_


@pytest.fixture
def flowers(options, config):
  """A dataset of 4 + 2 shards in the folder `to`, which the config reads."""
  prepare(with_(options, shards=4))
  config.data.name, config.data.data_dir, config.data.eval_split = "flowers", options.to, "validation"
  return config


def copy(config, to) -> str:
  staging.stage(needed_files.of_config(config), str(to))
  return str(to)


def contents(folder) -> dict[str, bytes]:
  return {name: storage.read_bytes(f"{folder}/{name}") for name, _ in storage.walk(str(folder))}


def examples(config, data_dir) -> list[bytes]:
  with config.unlocked():
    config.data.data_dir = data_dir
  return sorted(record for _, record in sources.open_split(config.data, "train", 2).read_all().as_numpy_iterator())


def test_a_copy_has_the_same_files_and_is_made_once(flowers, tmp_path, capsys, monkeypatch):
  source = contents(flowers.data.data_dir)
  to = copy(flowers, tmp_path / "copy")
  made = contents(to)
  made.pop(staging.MANIFEST)
  assert made == source
  first = capsys.readouterr().out.splitlines()
  assert re.fullmatch(rf"copying \d+ kB in {len(source)} files from \S+ to {to}", first[0])
  assert re.fullmatch(r"copied \d+ kB in 0 s, \d\.\d\d GB/s, checked", first[-1])
  assert not (tmp_path / "copy.incomplete").exists()
  monkeypatch.setattr(storage, "copy_into", None)  # nothing may be copied
  copy(flowers, to)
  assert re.fullmatch(rf"{to} is whole: .* nothing to copy\n", capsys.readouterr().out)
  assert examples(flowers, to) == examples(flowers, storage.join(str(tmp_path), "to"))


def test_only_the_shards_of_the_splits_are_copied(flowers, tmp_path):
  flowers.data.train_split = "train[:50%]"
  names = {storage.name(name) for name in contents(copy(flowers, tmp_path / "copy")) if ".tfrecord-" in name}
  assert {"flowers-train.tfrecord-00000-of-00004", "flowers-train.tfrecord-00001-of-00004"} <= names
  assert "flowers-train.tfrecord-00003-of-00004" not in names
  assert sum("validation" in name for name in names) == 4
  flowers.data.eval_split = "train[:50%]"
  needed = needed_files.of_config(flowers)
  assert not any("validation" in file.name for file in needed.files)
  assert needed.num_examples == 10  # once, although both splits are the same


def test_arrays(config, tmp_path):
  for name in ("train.npz", "test.npz", "other.npz"):
    storage.write_bytes(f"{tmp_path}/data/{name}", name.encode())
  config.data.name, config.data.data_dir = "arrays", str(tmp_path / "data")
  assert sorted(contents(copy(config, tmp_path / "copy"))) == ["staged.json", "test.npz", "train.npz"]
  config.data.eval_split = "val"
  with pytest.raises(UserError, match="data/val.npz does not exist; --config.data.data_dir=DIR looks elsewhere"):
    needed_files.of_config(config)


def test_the_digits_are_made_first(config, tmp_path):
  config.data.data_dir = str(tmp_path / "data")
  assert storage.is_file(f"{copy(config, tmp_path / 'copy')}/digits/1.0.0/dataset_info.json")


def shorten(config, shard):
  """Makes `copy_into` lose the end of a shard's copy."""
  whole = storage.copy_into

  def cut_short(path, file, *rest):
    whole(path, file, *rest)
    if shard in path:
      file.seek(10)
      file.truncate()

  return cut_short


def test_a_file_that_was_cut_short_is_detected_and_the_copy_continues(flowers, tmp_path, capsys, monkeypatch):
  with monkeypatch.context() as patched:
    patched.setattr(storage, "copy_into", shorten(flowers, "train.tfrecord-00002"))
    with pytest.raises(RunFailed, match=r"00002-of-00004 had [\d,]+ bytes when it was listed, and 10 were copied"):
      copy(flowers, tmp_path / "copy")
  assert not (tmp_path / "copy").exists()
  kept = contents(tmp_path / "copy.incomplete/dataset")
  assert not any("00002-of-00004" in name for name in kept if "train" in name)
  capsys.readouterr()
  # What a killed process leaves of a file is no file of the dataset.
  storage.write_bytes(f"{tmp_path}/copy.incomplete/dataset/flowers/1.0.0/x.partial", b"half")
  to = copy(flowers, tmp_path / "copy")
  made = contents(to)
  made.pop(staging.MANIFEST)
  assert made == contents(flowers.data.data_dir)
  left = len(made) + 1 - len(kept)
  first, last = capsys.readouterr().out.splitlines()
  assert f" in {left} files from " in first
  assert re.search(r"checked \(\d+ kB with those of an earlier start\)$", last)


def test_a_copy_that_was_damaged_since_is_made_again(flowers, tmp_path, capsys):
  to = copy(flowers, tmp_path / "copy")
  shard = f"{to}/flowers/1.0.0/flowers-train.tfrecord-00001-of-00004"
  os.truncate(shard, os.path.getsize(shard) - 1)
  capsys.readouterr()
  copy(flowers, to)
  assert f"1 files of the copy in {to} are not whole, flowers/1.0.0/flowers-train" in capsys.readouterr().out
  assert storage.read_bytes(shard) == storage.read_bytes(shard.replace(to, flowers.data.data_dir))


def test_a_dataset_that_was_prepared_again_is_copied_again(flowers, tmp_path, capsys):
  to = copy(flowers, tmp_path / "copy")
  shard = f"{flowers.data.data_dir}/flowers/1.0.0/flowers-train.tfrecord-00001-of-00004"
  storage.write_bytes(shard, bytes(os.path.getsize(shard)))  # the same size
  capsys.readouterr()
  copy(flowers, to)
  assert "holds a copy of another dataset, or of an earlier state of this one" in capsys.readouterr().out
  assert storage.read_bytes(shard.replace(flowers.data.data_dir, to)) == storage.read_bytes(shard)


def test_a_dataset_that_does_not_fit_is_refused_with_both_sizes(flowers, tmp_path, monkeypatch):
  monkeypatch.setattr(storage, "free_bytes", lambda folder: 2000)
  with pytest.raises(
    UserError, match=rf"the dataset has \d+ kB, .* and {tmp_path} has 2 kB of free space; .*without --stage_data"
  ):
    copy(flowers, tmp_path / "copy")
  assert not (tmp_path / "copy").exists() and not (tmp_path / "copy.incomplete").exists()


@pytest.mark.parametrize("size", [2000, 200_000])  # of which the first is written only when the file is closed
def test_a_file_system_without_room_is_named_and_not_the_source(config, tmp_path, size):
  for name in ("train.npz", "test.npz"):
    storage.write_bytes(f"{tmp_path}/data/{name}", bytes(size))
  config.data.name, config.data.data_dir = "arrays", str(tmp_path / "data")
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))  # a larger file cannot be written
  try:
    with pytest.raises(UserError, match=rf"^{tmp_path}/copy.incomplete/\S+ cannot be written: File too large"):
      copy(config, tmp_path / "copy")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
  ("fields", "to", "words"),
  [
    ({"data_dir": ""}, "copy", "--config.data.data_dir is not given"),
    ({"data_dir": "absent"}, "copy", "dataset 'flowers' is not in "),
    ({"train_split": "training"}, "copy", "has no split 'training'; it has train, validation"),
    ({"name": "folder"}, "copy", "data.prepare makes a dataset of them"),
    ({}, "to", "must not be within each other"),
    ({}, "to/inside", "must not be within each other"),
    ({}, ".", "must not be within each other"),
    ({}, "photos", "photos holds other files"),
    ({}, "photos/train/rose/0.jpg", "0.jpg is a file"),
  ],
)
def test_wrong_input(flowers, tmp_path, fields, to, words):
  for name, value in fields.items():
    flowers.data[name] = value
  before = contents(tmp_path)
  with pytest.raises(UserError, match=words):
    copy(flowers, os.path.normpath(tmp_path / to))
  assert contents(tmp_path) == before


def test_a_dataset_that_lacks_a_shard_is_refused(flowers, tmp_path):
  storage.remove_file(f"{flowers.data.data_dir}/flowers/1.0.0/flowers-train.tfrecord-00003-of-00004")
  with pytest.raises(UserError, match="lacks 1 of its files, flowers-train.tfrecord-00003-of-00004 first; prepare"):
    copy(flowers, tmp_path / "copy")


def test_two_copies_at_once_are_refused(flowers, tmp_path):
  storage.make_folder(f"{tmp_path}/copy.incomplete")
  with storage.locked(f"{tmp_path}/copy.incomplete"), pytest.raises(storage.Locked, match="another process"):
    copy(flowers, tmp_path / "copy")


def test_the_command(tmp_path):
  data, to = tmp_path / "data", tmp_path / "copy"
  flags = ["--config=configs/quickstart.py", f"--config.data.data_dir={data}", f"--to={to}"]
  done = command("data.stage", *flags)
  assert done.returncode == 0, done.stderr
  assert re.fullmatch(r"copied 317 kB in 0 s, \d\.\d\d GB/s, checked", done.stdout.splitlines()[-1])
  assert json.loads((to / "staged.json").read_text())["source"] == str(data)
  done = command("data.stage", *flags[:1], flags[2])
  assert done.returncode == 2
  assert done.stderr.startswith("error: --config.data.data_dir is not given") and done.stderr.count("\n") == 1


SLOW = """
import sys, time
from shufflenet_jax import storage
from shufflenet_jax.data import stage

whole = storage.copy_into

def slow(path, *rest):
  whole(path, *rest)
  time.sleep(60 * ("train" in path))

storage.copy_into = slow
stage.command()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, PREEMPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_copy_that_is_stopped_is_no_copy(tmp_path, config, number, status):
  flags = ["--config=configs/quickstart.py", f"--config.data.data_dir={config.data.data_dir}", f"--to={tmp_path}/copy"]
  needed = needed_files.of_config(config)  # which makes the digits
  process = subprocess.Popen([sys.executable, "-c", SLOW, *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True)
  partial, until = [], time.monotonic() + 120
  while not partial and time.monotonic() < until:
    time.sleep(0.1)
    partial = list(tmp_path.glob("copy.incomplete/dataset/digits/1.0.0/*train*.partial"))
  time.sleep(0.5)
  process.send_signal(number)
  assert process.wait(30) == status, process.stdout.read()
  process.stdout.close()
  assert not (tmp_path / "copy").exists()
  assert partial[0].exists()
  assert contents(copy(config, tmp_path / "copy")).keys() == {staging.MANIFEST, *(x.name for x in needed.files)}


def test_progress_has_the_rate_and_the_time_left(flowers, tmp_path, capsys, monkeypatch):
  whole = storage.copy_into

  def slow(*arguments):
    whole(*arguments)
    time.sleep(0.3)

  monkeypatch.setattr(storage, "copy_into", slow)
  monkeypatch.setattr(progress, "LOG_SECONDS", 0)
  copy(flowers, tmp_path / "copy")
  shown = capsys.readouterr().out.splitlines()[1:-1]
  assert shown
  for line in shown:
    assert re.fullmatch(r"copied \d+ kB of \d+ kB, \d\.\d\d GB/s, \d s left", line)
