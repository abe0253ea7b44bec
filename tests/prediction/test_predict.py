"""Predictions of files, folders and patterns: answered in order, in batches, whatever else cannot be read."""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.data import cores, picture_files
from shufflenet_jax.prediction.predictor import CPU_BATCH_SIZES, Predictor
from shufflenet_jax.prediction.report import report
from tests.checkpoints import of_random_weights
from tests.commands import ROOT
from tests.pictures import picture, put


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A checkpoint of a small network of random weights, with a class that is no ASCII."""
  names = [f"Gänseblümchen {i}" for i in range(10)]
  return of_random_weights(tmp_path_factory.mktemp("predict") / "w", names)


@pytest.fixture(scope="module")
def predictor(workdir):
  return Predictor(checkpoint.find(workdir))


@pytest.fixture
def folder(tmp_path):
  """Pictures at several depths, and what is none."""
  for name in ("b.jpg", "a/2.JPEG", "a/deep/1.jpeg", "a/x[1].jpg"):
    put(tmp_path / "photos" / name, picture())
  put(tmp_path / "photos/c.png", picture(kind="PNG"))
  put(tmp_path / "photos/.hidden.jpg", picture())
  put(tmp_path / "photos/notes.txt", b"not a picture")
  (tmp_path / "empty").mkdir()
  return tmp_path


def answers(capsys, predictor, *arguments):
  """(pictures that could not be read, [image, ...], stderr)."""
  unreadable = report(predictor, [*map(str, arguments)], as_json=True)
  out, err = capsys.readouterr()
  return unreadable, [json.loads(line)["image"] for line in out.splitlines()], err


def test_a_folder_is_all_its_pictures(folder, predictor, capsys):
  names = ["a/2.JPEG", "a/deep/1.jpeg", "a/x[1].jpg", "b.jpg", "c.png"]
  photos = folder / "photos"
  assert answers(capsys, predictor, photos) == (0, [f"{photos}/{name}" for name in names], "")


@pytest.mark.parametrize(
  ("pattern", "names"),
  [
    ("*.jpg", ["b.jpg"]),
    ("**/*.jpg", ["a/x[1].jpg", "b.jpg"]),
    ("a/?.*", ["a/2.JPEG"]),
    ("[bc].*", ["b.jpg", "c.png"]),
    ("a/x[1].jpg", ["a/x[1].jpg"]),  # a file of that very name
  ],
)
def test_patterns(folder, predictor, capsys, pattern, names):
  photos = folder / "photos"
  assert answers(capsys, predictor, photos / pattern) == (0, [f"{photos}/{name}" for name in names], "")


def test_what_cannot_be_read_is_a_line_and_the_others_go_on(folder, predictor, capsys):
  photos = folder / "photos"
  others = ["https://example.org/a.jpg", "s3://bucket/a.jpg", "hdfs://host/a.jpg", "gs:/bucket/a.jpg", "~nobody-here/a"]
  bad = [*others, folder / "empty", photos / "*.gif", photos / "notes.txt", photos / "absent.jpg"]
  status, images, err = answers(capsys, predictor, photos / "c.png", *bad, photos / "b.jpg")
  assert (status, images) == (9, [f"{photos}/c.png", f"{photos}/b.jpg"])
  lines = err.splitlines()
  assert len(lines) == len(bad) + 1
  for argument, line in zip(bad, lines):
    assert line.startswith(f"error: {argument}: "), line
  assert lines[-1] == f"error: {len(bad)} of {len(bad) + 2} images could not be read"


@pytest.mark.parametrize("batch_sizes", [(1, 8), (1, 8, 64)])
@pytest.mark.parametrize("count", [1, 5, 20])
def test_answers_do_not_depend_on_the_batch(tmp_path, predictor, capsys, monkeypatch, batch_sizes, count):
  monkeypatch.setattr(predictor, "batch_sizes", batch_sizes)
  encoded = [picture(height=30 + i) for i in range(count)]
  for i, content in enumerate(encoded):
    put(tmp_path / f"{i:02}.jpg", content)
  assert report(predictor, [str(tmp_path)], as_json=True) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == count
  for line, content in zip(lines, encoded):
    classes = {c["name"]: c["probability"] for c in json.loads(line)["classes"]}
    assert classes == pytest.approx(dict(predictor(content)), abs=1e-5)


def test_pictures_are_computed_together_and_few_are_held(tmp_path):
  for i in range(100):
    put(tmp_path / f"{i:03}.jpg", bytes([i]))
  begun = []

  def decode(encoded):
    begun.append(encoded[0])
    return np.zeros((1, 1, 3), np.uint8)

  groups = picture_files.decoded(picture_files.find([str(tmp_path)]), decode, 8)
  first = next(groups)
  assert [os.path.basename(p.path) for p in first] == [f"{i:03}.jpg" for i in range(8)]
  time.sleep(0.2)
  assert len(begun) <= 24
  assert [len(first), *map(len, groups)] == [8] * 12 + [4]
  assert sorted(begun) == list(range(100))


def test_storage_that_does_not_answer_ends_the_command_once(tmp_path, predictor, capsys, monkeypatch):
  """Each other picture would be asked for as long as the first; those read before it are answered."""
  for i in range(40):
    put(tmp_path / f"{i:02}.jpg", picture())
  read, asked = storage.read_bytes, []

  def read_bytes(path):
    asked.append(path)
    if path.endswith("00.jpg"):
      return read(path)
    raise storage.Outage(f"{path} cannot be read now")

  monkeypatch.setattr(storage, "read_bytes", read_bytes)
  with pytest.raises(storage.Outage):
    report(predictor, [str(tmp_path)], as_json=True)
  assert len(asked) <= 1 + cores.count()
  assert [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()] == [f"{tmp_path}/00.jpg"]


def test_one_file_that_cannot_be_read_now_does_not_end_the_command(tmp_path, predictor, capsys, monkeypatch):
  for i in range(3):
    put(tmp_path / f"{i}.jpg", picture())
  read = storage.read_bytes

  def read_bytes(path):
    if path.endswith("1.jpg"):
      raise storage.translate_error(OSError(5, "Input/output error"), path)
    return read(path)

  monkeypatch.setattr(storage, "read_bytes", read_bytes)
  assert report(predictor, [str(tmp_path)], as_json=True) == 1
  assert len(capsys.readouterr().out.splitlines()) == 2


def test_progress_is_told_where_it_takes_long(tmp_path, predictor, capsys, monkeypatch):
  for i in range(24):
    put(tmp_path / f"{i:02}.jpg", picture())
  seconds, answers_of = [0.0], predictor.answers

  def in_seven_seconds(*args):
    seconds[0] += 7
    return answers_of(*args)

  monkeypatch.setattr(predictor, "batch_sizes", (8,))
  monkeypatch.setattr(predictor, "answers", in_seven_seconds)
  monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
  assert report(predictor, [str(tmp_path)], as_json=True) == 0
  assert capsys.readouterr().err == "16 of 24 pictures, 1/s, 7 s left\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_names_that_the_console_cannot_encode(folder, workdir, as_json):
  put(folder / "Blüten/1.jpg", picture())
  done = subprocess.run(
    [sys.executable, "-m", "shufflenet_jax.predict", f"--checkpoint={workdir}", f"--json={as_json}",
     f"{folder}/Blüten", f"{folder}/weiß.jpg"],
    cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=120,
  )  # fmt: skip
  out, err = done.stdout.decode("ascii"), done.stderr.decode("ascii")
  assert done.returncode == 1, err
  assert (
    err == rf"error: {folder}/wei\xdf.jpg: No such file or directory" + "\nerror: 1 of 2 images could not be read\n"
  )
  if as_json:
    [answer] = [json.loads(line) for line in out.splitlines()]
    assert answer["image"] == f"{folder}/Blüten/1.jpg"
    assert {c["name"][:-2] for c in answer["classes"]} == {"Gänseblümchen"}
  else:
    assert rf"{folder}/Bl\xfcten/1.jpg" in out
    assert out.count(r"G\xe4nsebl\xfcmchen") == 5


@pytest.mark.parametrize("platforms", ["cuda", "typo"])
def test_a_platform_that_is_not_there_is_one_line(platforms):
  code = "from shufflenet_jax import cli\ndef main(_): import jax; jax.devices()\ncli.Command(main, id)()"
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": platforms}, capture_output=True, text=True, timeout=60,
  )  # fmt: skip
  lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1
  no_devices = f"error: JAX finds no devices for JAX_PLATFORMS={platforms}"
  assert lines[0].startswith((no_devices, "error: JAX cannot use the accelerators of this machine"))
  assert "Traceback" not in done.stderr
  assert done.returncode in (1, 2)  # 1 where there is an accelerator, which may be in use


def test_on_the_cpu_batches_are_small(predictor):
  assert jax.default_backend() == "cpu"
  assert predictor.batch_sizes == CPU_BATCH_SIZES
