"""A folder per class to evaluate on: matched by name; what is bad in it is named."""

import re
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data import folders, pipeline
from shufflenet_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
  """Two of three classes, one picture deeper than its class folder."""
  for place, value in (("n02 cat, feline/x.png", 10), ("n03/deep/y.JPG", 20), ("n03/z.png", 30)):
    path = tmp_path / "folder" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((33, 40, 3), value, np.uint8)
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(image).numpy())
  (tmp_path / "folder" / "n03" / "notes.txt").write_text("no image")
  return tmp_path / "folder"


CLASSES = ("n01 dog", "n02 cat, feline", "n03 newt")


def test_a_folder_is_matched_by_name_not_by_rank(folder, config):
  split = folders.open_folder(str(folder), CLASSES)
  [batch] = pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3)
  seen = sorted(zip(batch["label"][batch["mask"]].tolist(), batch["image"][batch["mask"]].mean((1, 2, 3)).tolist()))
  assert seen == [(1, 10.0), (2, 20.0), (2, 30.0)]


def test_first_words_that_are_not_unique_match_nothing(tmp_path):
  for name in ("fruit apple", "fruit"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "x.png").write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy())
  with pytest.raises(UserError, match="fruit is no class of the checkpoint; its 2 classes .* 'fruit grape'"):
    folders.open_folder(str(tmp_path), ("fruit grape", "apple"))
  assert folders.open_folder(str(tmp_path), ("fruit", "fruit apple")).num_examples == 2


def test_an_accent_may_be_composed_or_not(tmp_path):
  """macOS and archives made there decompose what Linux and Windows compose."""
  composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
  (tmp_path / decomposed).mkdir()
  (tmp_path / decomposed / "x.png").write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy())
  assert folders.open_folder(str(tmp_path), ("bar", composed)).num_examples == 1


def test_bad_folders(folder, tmp_path):
  with pytest.raises(UserError, match="absent is not a folder"):
    folders.open_folder(str(tmp_path / "absent"), CLASSES)
  (folder / "n04").mkdir()
  with pytest.raises(UserError, match="n04 is no class of the checkpoint; its 3 classes are named as"):
    folders.open_folder(str(folder), CLASSES)
  (tmp_path / "empty" / "n03").mkdir(parents=True)
  with pytest.raises(UserError, match="holds no images"):
    folders.open_folder(str(tmp_path / "empty"), CLASSES)


def test_what_a_folder_holds_besides_is_counted(folder):
  (folder / "loose.png").write_bytes((folder / "n03" / "z.png").read_bytes())
  (folder / "n01").mkdir()
  assert folders.open_folder(str(folder), CLASSES).note == (
    "ignored: 2 files that are no images in a class folder (loose.png first);"
    " 1 class folders without images (n01 first)"
  )
  (folder / "loose.png").unlink()
  (folder / "n01").rmdir()
  (folder / "n03" / "notes.txt").unlink()
  (folder / "n03" / ".hidden").mkdir()
  (folder / "n03" / ".hidden" / "x.png").write_bytes((folder / "n03" / "z.png").read_bytes())
  assert folders.open_folder(str(folder), CLASSES).num_examples == 3
  assert folders.open_folder(str(folder), CLASSES).note == ""


def test_webp_is_read(folder, config):
  from PIL import Image

  Image.fromarray(np.full((33, 40, 3), 90, np.uint8)).save(folder / "n03" / "z.webp", lossless=True)
  split = folders.open_folder(str(folder), CLASSES)
  [batch] = pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3)
  assert sorted(batch["image"].mean((1, 2, 3))) == [10, 20, 30, 90]


@pytest.mark.parametrize("spoil", [lambda b: b"", lambda b: b"no picture", lambda b: b[: len(b) // 2]])
@pytest.mark.parametrize("name", ["y.JPG", "z.png"])
def test_a_picture_that_cannot_be_decoded_is_named(folder, config, spoil, name):
  [path] = folder.rglob(name)
  path.write_bytes(spoil(path.read_bytes()))
  split = folders.open_folder(str(folder), CLASSES)
  for batch_size in (1, 4):
    with pytest.raises(UserError) as raised:
      list(pipeline.eval_batches(split, config.data, batch_size=batch_size, num_classes=3))
    assert str(raised.value).startswith(f"{path} cannot be decoded (")
    assert not re.search("{{|Op:|prepare", str(raised.value))


def test_a_picture_that_is_gone_is_named(folder, config):
  split = folders.open_folder(str(folder), CLASSES)
  (folder / "n03" / "z.png").unlink()
  with pytest.raises(UserError, match="z.png cannot be read: .*No such file"):
    list(pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3))
