"""A folder per class to evaluate on: matched by name; what is bad in it is named."""

import itertools
import os
import re
import unicodedata

import numpy as np
import pytest

from shufflenet_jax.data.prepare import inputs
from shufflenet_jax.data.sources import folder as folder_source
from shufflenet_jax.data.stream import evaluation, training
from shufflenet_jax.errors import UserError
from tests.pictures import put, uniform


@pytest.fixture
def folder(tmp_path):
  """Two of three classes, one picture deeper than its class folder."""
  for place, value in (("n02 cat, feline/x.png", 10), ("n03/deep/y.JPG", 20), ("n03/z.png", 30)):
    put(tmp_path / "folder" / place, uniform(value, 33, 40, "PNG" if place.endswith(".png") else "JPEG"))
  (tmp_path / "folder" / "n03" / "notes.txt").write_text("no image")
  return tmp_path / "folder"


PNG = uniform(50, 6, 7, "PNG")
CLASSES = ("n01 dog", "n02 cat, feline", "n03 newt")


def test_a_folder_is_matched_by_name_not_by_rank(folder, config):
  split = folder_source.open_folder(str(folder), CLASSES)
  [batch] = evaluation.eval_batches(split, config.data, batch_size=4, num_classes=3)
  seen = sorted(zip(batch["label"][batch["mask"]].tolist(), batch["image"][batch["mask"]].mean((1, 2, 3)).tolist()))
  assert seen == [(1, 10.0), (2, 20.0), (2, 30.0)]


def test_first_words_that_are_not_unique_match_nothing(tmp_path):
  for name in ("fruit apple", "fruit"):
    put(tmp_path / name / "x.png", PNG)
  with pytest.raises(UserError, match="fruit is not a class of the checkpoint; its 2 classes .* 'fruit grape'"):
    folder_source.open_folder(str(tmp_path), ("fruit grape", "apple"))
  assert folder_source.open_folder(str(tmp_path), ("fruit", "fruit apple")).num_examples == 2


def test_an_accent_may_be_composed_or_not(tmp_path):
  """macOS and archives made there decompose what Linux and Windows compose."""
  composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
  put(tmp_path / decomposed / "x.png", PNG)
  assert folder_source.open_folder(str(tmp_path), ("bar", composed)).num_examples == 1


def test_bad_folders(folder, tmp_path):
  with pytest.raises(UserError, match="absent is not a folder"):
    folder_source.open_folder(str(tmp_path / "absent"), CLASSES)
  (folder / "n04").mkdir()
  with pytest.raises(UserError, match="n04 is not a class of the checkpoint; its 3 classes have names like"):
    folder_source.open_folder(str(folder), CLASSES)
  (tmp_path / "empty" / "n03").mkdir(parents=True)
  with pytest.raises(UserError, match="holds no images"):
    folder_source.open_folder(str(tmp_path / "empty"), CLASSES)


def test_what_a_folder_holds_besides_is_counted(folder):
  (folder / "loose.png").write_bytes((folder / "n03" / "z.png").read_bytes())
  (folder / "n01").mkdir()
  assert folder_source.open_folder(str(folder), CLASSES).note == (
    "ignored: 2 files that are not images in a class folder (loose.png first);"
    " 1 class folders without images (n01 first)"
  )
  (folder / "loose.png").unlink()
  (folder / "n01").rmdir()
  (folder / "n03" / "notes.txt").unlink()
  (folder / "n03" / ".hidden").mkdir()
  (folder / "n03" / ".hidden" / "x.png").write_bytes((folder / "n03" / "z.png").read_bytes())
  assert folder_source.open_folder(str(folder), CLASSES).num_examples == 3
  assert folder_source.open_folder(str(folder), CLASSES).note == ""


def made(root, *names, content=PNG):
  for name in names:
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(content)
  return root


def test_what_is_a_picture_is_read_whatever_its_suffix(tmp_path, config):
  made(tmp_path, "n03/a.jpe", "n03/b.JFIF", "n03/c", "n03/d.picture", "n03/e.png.old", "n03/f.JPEG")
  made(tmp_path, "n03/b.txt", content=b"BM, a text that begins like a bitmap")
  made(tmp_path, "n03/a.tif", "n03/g.tiff", content=b"II*\0" + bytes(50))
  split = folder_source.open_folder(str(tmp_path), CLASSES)
  [batch] = evaluation.eval_batches(split, config.data, batch_size=8, num_classes=3)
  assert batch["mask"].sum() == 6
  assert (batch["image"][:6] == 50).all()
  assert split.note == "ignored: 3 files that are not images in a class folder (n03/a.tif first)"


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/x.png", b"tab\t\xff.png", b"\xc3\xa9.png"])
def test_names_of_any_bytes_are_read_and_named(tmp_path, config, name):
  made(tmp_path, b"n03/" + os.fsencode(name))
  split = folder_source.open_folder(str(tmp_path), CLASSES)
  [batch] = evaluation.eval_batches(split, config.data, batch_size=1, num_classes=3)
  assert (batch["image"] == 50).all()
  [batch] = itertools.islice(
    training.train_batches(split, config.data, batch_size=1, num_classes=3, seed=0, start_step=0), 1
  )
  assert (batch["image"] == 50).all()
  made(tmp_path, b"n03/" + os.fsencode(name), content=b"no picture")
  with pytest.raises(UserError, match=r"n03/.*(caf\\xe9|tab\\t\\xff|\xe9).*png cannot be decoded") as raised:
    list(evaluation.eval_batches(split, config.data, batch_size=1, num_classes=3))
  str(raised.value).encode()  # printable
  assert str(raised.value).isprintable()
  made(tmp_path, b"n03/" + os.fsencode(name) + b".txt", content=b"")
  assert folder_source.open_folder(str(tmp_path), CLASSES).note.isprintable()


def test_links_that_lead_back_are_passed_over_and_others_followed(tmp_path):
  root = made(tmp_path / "data" / "train", "n02/a.png", "n03/b.png", "n03/deep/c.png")
  made(tmp_path / "data" / "val", "n03/d.png")
  made(tmp_path / "elsewhere", "e.png")
  (root / "n02" / "other").symlink_to(tmp_path / "elsewhere")
  (root / "n02" / "file.png").symlink_to(tmp_path / "elsewhere" / "e.png")
  assert folder_source.open_folder(str(root), CLASSES).num_examples == 5
  for link, to in (("root", ".."), ("self", "."), ("data", "../.."), ("all", tmp_path), ("top", "/")):
    (root / "n02" / link).symlink_to(to)
  (root / "n03" / "deep" / "up").symlink_to("..")
  split = folder_source.open_folder(str(root), CLASSES)
  assert split.num_examples == 5
  assert split.note == "ignored: 6 files that are not images in a class folder (n02/all first)"


def test_what_is_neither_file_nor_folder_is_passed_over(tmp_path):
  made(tmp_path, "n03/a.png", "n03/x.jpg/b.png")  # a folder named like a picture
  os.mkfifo(tmp_path / "n03" / "fifo.png")  # reading it would wait for ever
  (tmp_path / "n03" / "gone.png").symlink_to("nowhere")
  (tmp_path / "n03" / "round.png").symlink_to("round.png")
  split = folder_source.open_folder(str(tmp_path), CLASSES)
  assert split.num_examples == 2
  assert split.note == "ignored: 3 files that are not images in a class folder (n03/fifo.png first)"


def test_prepare_takes_the_same_and_refuses_what_leads_nowhere(tmp_path):
  root = made(tmp_path / "photos", "n02/a.jpe", "n03/b", b"n03/caf\xe9.png", "n03/.#lock")
  (root / "n03" / ".#lock").unlink()
  (root / "n03" / ".#lock").symlink_to("an editor's")
  tell = []
  found = inputs.open_source("--train", str(root), tell.append)
  assert [p.read() for p in found.pictures] == [PNG] * 3
  for link, to, what in (("up", "..", "a link to a folder above it"), ("c.png", "nowhere", "a broken link")):
    (root / "n03" / link).symlink_to(to)
    with pytest.raises(UserError, match=f"n03/{link} is {what}; remove it"):
      inputs.open_source("--train", str(root), tell.append)
    (root / "n03" / link).unlink()


def test_webp_is_read(folder, config):
  from PIL import Image

  Image.fromarray(np.full((33, 40, 3), 90, np.uint8)).save(folder / "n03" / "z.webp", lossless=True)
  split = folder_source.open_folder(str(folder), CLASSES)
  [batch] = evaluation.eval_batches(split, config.data, batch_size=4, num_classes=3)
  assert sorted(batch["image"].mean((1, 2, 3))) == [10, 20, 30, 90]


@pytest.mark.parametrize("spoil", [lambda b: b"", lambda b: b"no picture", lambda b: b[: len(b) // 2]])
@pytest.mark.parametrize("name", ["y.JPG", "z.png"])
def test_a_picture_that_cannot_be_decoded_is_named(folder, config, spoil, name):
  [path] = folder.rglob(name)
  path.write_bytes(spoil(path.read_bytes()))
  split = folder_source.open_folder(str(folder), CLASSES)
  for batch_size in (1, 4):
    with pytest.raises(UserError) as raised:
      list(evaluation.eval_batches(split, config.data, batch_size=batch_size, num_classes=3))
    assert str(raised.value).startswith(f"{path} cannot be decoded (")
    assert not re.search("{{|Op:|prepare", str(raised.value))


def test_a_picture_that_is_gone_is_named(folder, config):
  split = folder_source.open_folder(str(folder), CLASSES)
  (folder / "n03" / "z.png").unlink()
  with pytest.raises(UserError, match="z.png cannot be read: .*No such file"):
    list(evaluation.eval_batches(split, config.data, batch_size=4, num_classes=3))
