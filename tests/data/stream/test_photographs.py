"""Folders to train on: each picture once an epoch on any processes; bad ones are skipped, named and counted."""

import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data import sources
from shufflenet_jax.data.stream import evaluation, in_memory, training
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.training import preflight
from tests.conftest import small_config
from tests.pictures import uniform
from tests.streams import assert_same, stream, write_photographs


@pytest.fixture
def photographs(tmp_path, config):
  """Sixteen to train on, four to evaluate."""
  return write_photographs(tmp_path / "photographs", config)


def test_a_folder_is_a_dataset(photographs, config):
  train = sources.open_split(config.data, "train", 10, every_class=True)
  assert train.class_names[:3] == ("ant", "bee", "2")
  assert train.dataset_classes == 2
  seen = {int(i): (int(label), round(image.mean(), -1)) for b in stream(config, 2) for i, label, image in
          zip(b["id"], b["label"], b["image"])}  # fmt: skip
  assert seen == {i: (i // 8, 10 * (2 * (i % 8) + i // 8)) for i in range(16)}


def test_every_epoch_holds_each_picture_once(photographs, config):
  for epoch in np.split(np.concatenate([b["id"] for b in stream(config, 8, 12)]), 6):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(16))


@pytest.fixture(scope="module", params=["held in memory", "read in every epoch"])
def shuffle_bytes(request):
  return {"held in memory": 1 << 30, "read in every epoch": 100}[request.param]


@pytest.fixture(scope="module")
def ids_of_8_steps(tmp_path_factory, data_dir, shuffle_bytes):
  """As one process reads them from the start."""
  config = small_config(data_dir)
  config.data.shuffle_bytes = shuffle_bytes
  write_photographs(tmp_path_factory.mktemp("photographs"), config)
  return np.concatenate([b["id"] for b in stream(config, 8, 12)])


@pytest.mark.parametrize(("count", "start_step"), [(1, 3), (1, 7), (2, 0), (2, 7), (4, 0), (4, 3)])
def test_any_processes_read_the_same_from_any_step(
  photographs, config, ids_of_8_steps, shuffle_bytes, start_step, count
):
  """Within the first epoch of 16, and within the last, in steps of 12."""
  config.data.shuffle_bytes = shuffle_bytes
  split = sources.open_split(config.data, "train", 10, every_class=True)
  assert in_memory.fits(split, shuffle_bytes) == (shuffle_bytes > 100)
  parts = [stream(config, 8 - start_step, 12, start_step=start_step, process=(p, count)) for p in range(count)]
  ids = np.concatenate([np.concatenate([b["id"] for b in step]) for step in zip(*parts)])
  np.testing.assert_array_equal(ids, ids_of_8_steps[start_step * 12 :])


SPOILT = {"03": b"no picture", "07": b"", "11": uniform(100)[:300]}  # the last is cut


def test_bad_pictures_are_skipped_named_and_counted(photographs, config):
  whole = stream(config, 6)
  for name, content in SPOILT.items():
    (photographs / "train" / "bee" / f"{name}.jpg").write_bytes(content)
  config.data.max_bad_train = 3
  said = []
  skipped = stream(config, 6, warn=said.append)
  assert sorted(line.partition(" cannot be decoded")[0] for line in said) == [
    f"skipped: {photographs}/train/bee/{name}.jpg" for name in SPOILT
  ]
  bad = [8 + int(name) // 2 for name in SPOILT]  # of the second class
  for before, now in zip(whole, skipped):
    good = ~np.isin(before["id"], bad)
    assert_same({k: v[good] for k, v in before.items()}, {k: v[good] for k, v in now.items()})
    assert not np.isin(now["id"], bad).any()
    assert now["image"].shape == before["image"].shape
  resumed = stream(config, 2, start_step=4, warn=said.append)
  for a, b in zip(resumed, skipped[4:]):
    assert_same(a, b)


@pytest.mark.parametrize(("most", "name"), [(0, "03"), (0, "07"), (0, "11"), (2, "03|07|11")])
def test_more_bad_pictures_than_allowed_end_it(photographs, config, most, name):
  for one in name.split("|"):
    (photographs / "train" / "bee" / f"{one}.jpg").write_bytes(SPOILT[one])
  config.data.max_bad_train = most
  remedy = f"at most --config.data.max_bad_train={most} may be skipped"
  with pytest.raises(UserError, match=f"({name}).jpg cannot be decoded .*; {remedy}"):
    stream(config, 2)


def test_a_picture_that_vanishes_is_skipped(photographs, config):
  split = sources.open_split(config.data, "train", 10, every_class=True)
  (photographs / "train" / "bee" / "03.jpg").unlink()
  said = []
  options = {"batch_size": 16, "num_classes": 10, "seed": 0, "start_step": 0, "warn": said.append}
  [batch] = itertools.islice(training.train_batches(split, config.data, **options), 1)
  assert 9 not in batch["id"]
  assert "03.jpg cannot be read: " in said[0]


def test_other_kinds_of_pictures_among_jpegs(photographs, config):
  """PNG under a JPEG's name (ImageNet has one), grayscale and CMYK JPEGs, a JPEG smaller than the network's input."""
  from PIL import Image

  folder = photographs / "train" / "bee"
  image = np.full((40, 50, 3), 200, np.uint8)
  (folder / "01.jpg").write_bytes(tf.io.encode_png(image).numpy())
  Image.new("L", (50, 40), 200).save(folder / "03.jpg")
  Image.new("CMYK", (50, 40), (55, 55, 55, 0)).save(folder / "05.jpg")
  (folder / "07.jpg").write_bytes(uniform(200, 12, 10))
  said = []
  [batch] = stream(config, 1, 16, warn=said.append)
  means = dict(zip(batch["id"].tolist(), batch["image"].mean((1, 2, 3))))
  assert all(abs(means[8 + i] - 200) < 3 for i in range(4)), means
  assert not said


def test_evaluation_refuses_or_masks_bad_pictures(photographs, config):
  (photographs / "val" / "ant" / "18.jpg").write_bytes(b"no picture")
  split = sources.open_split(config.data, "val", 10, ("ant", "bee"))

  def evaluated():
    return list(evaluation.eval_batches(split, config.data, batch_size=3, num_classes=10, warn=said.append))

  said = []
  with pytest.raises(UserError, match="18.jpg cannot .*; at most --config.data.max_bad_eval=0 may be skipped"):
    evaluated()
  config.data.max_bad_eval = 1
  found = evaluated()
  assert [b["mask"].tolist() for b in found] == [[True, False, True], [True, False, False]]
  assert len(said) == 1


def test_folders_that_do_not_do(photographs, config):
  def opened(split="train", classes=10, **options):
    return sources.open_split(config.data, split, classes, every_class=True, **options)

  with pytest.raises(UserError, match="no folder 'test'; config.data.train_split and eval_split can be train or val"):
    opened("test")
  with pytest.raises(UserError, match="train has 2 classes, the network num_classes=1; set .*num_classes=2"):
    opened(classes=1)
  (photographs / "val" / "cat").mkdir()
  with pytest.raises(UserError, match="cat is not a class of the training data; its 2 classes have names like"):
    opened("val", class_names=("ant", "bee"))
  (photographs / "val" / "cat").rmdir()
  shutil.rmtree(photographs / "val" / "bee")
  with pytest.raises(UserError, match="val has no images .* of 1 of its 2 classes, 'bee' first"):
    opened("val", class_names=("ant", "bee"))
  (photographs / "train" / "cat").mkdir()
  with pytest.raises(UserError, match="train has no images .* of 1 of its 3 classes, 'cat' first"):
    opened()
  config.data.data_dir = str(photographs / "absent")
  with pytest.raises(UserError, match="absent cannot be read: No such file"):
    opened()
  (photographs / "absent").mkdir()
  with pytest.raises(UserError, match="can be none: it is empty"):
    opened()
  config.data.data_dir = ""
  with pytest.raises(UserError, match="needs --config.data.data_dir"):
    opened()


def test_training_names_what_it_passes_over(photographs, config, tmp_path, capsys):
  (photographs / "train" / "bee" / "scan.tif").write_bytes(b"II*\0")
  (photographs / "val" / "notes.txt").write_text("")
  preflight.prepare(config, str(tmp_path / "w"), jax.devices()[:1])
  said = capsys.readouterr().out
  assert f"{photographs}/train: ignored: 1 files that are not images in a class folder (bee/scan.tif first)" in said
  assert f"{photographs}/val: ignored: 1 files that are not images in a class folder (notes.txt first)" in said


def test_processes_must_divide_the_readers(photographs, config):
  with pytest.raises(UserError, match="batch_size=100 is read by 50 readers, which do not divide over 4 processes"):
    stream(config, 1, 100, process=(0, 4))


def test_batches_do_not_depend_on_how_many_threads_make_them(photographs, config, monkeypatch):
  expected = stream(config, 3)
  for calls in (1, 16):
    monkeypatch.setattr(tf.data, "AUTOTUNE", calls)
    for a, b in zip(stream(config, 3), expected):
      assert_same(a, b)


def test_epochs_smaller_than_a_batch_are_whole(photographs, config):
  """Sixteen pictures in batches of 56: three and a half epochs each."""
  ids = np.concatenate([b["id"] for b in stream(config, 2, 56)])
  for epoch in np.split(ids, 7):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(16))
  assert len({tuple(epoch) for epoch in np.split(ids, 7)}) == 7


@pytest.mark.parametrize(
  ("error", "kind", "words", "tries"),
  [
    (tf.errors.UnavailableError, RunFailed, "cannot be read now .*run the same command again", 1),
    (tf.errors.DeadlineExceededError, RunFailed, "cannot be read now", 1),
    (tf.errors.AbortedError, RunFailed, "cannot be read now", 1),
    (tf.errors.FailedPreconditionError, RunFailed, "cannot be read now", 1),
    (tf.errors.PermissionDeniedError, UserError, "cannot be read: no permission", 1),
    (tf.errors.DataLossError, UserError, "cannot be read: why; prepare it again", 2),
    (tf.errors.InvalidArgumentError, UserError, "cannot be read: why; prepare it again", 2),
    (tf.errors.NotFoundError, UserError, "cannot be read: why; restore it, or prepare it again", 2),
  ],
)
@pytest.mark.parametrize("is_training", [True, False])
def test_what_storage_refuses_is_no_damage(photographs, config, error, kind, words, tries, is_training):
  """And one that does not answer is waited for once: it is no reason to read carefully."""
  split = sources.open_split(config.data, "train", 10, every_class=True)
  tried = []

  def read(*arguments, **options):
    tried.append(arguments)
    raise error(None, None, "why")

  options = {"batch_size": 8, "num_classes": 10} | ({"seed": 0, "start_step": 0} if is_training else {})
  batches = training.train_batches if is_training else evaluation.eval_batches
  with pytest.raises(kind, match=words):
    next(batches(dataclasses.replace(split, read=read), config.data, **options))
  assert len(tried) == tries
