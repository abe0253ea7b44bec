"""Prepared datasets by name: their splits, their classes, and what is wrong with them in one line."""

import re
import shutil

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from shufflenet_jax.data import sources
from shufflenet_jax.data.stream import evaluation, training
from shufflenet_jax.errors import UserError
from tests.streams import open_tfds


class Tiny(tfds.core.GeneratorBasedBuilder):
  """Three pictures, one of each class."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Image(shape=(40, 60, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(3)}

  def _generate_examples(self, count):
    for i in range(count):
      yield i, {"image": np.full((40, 60, 3), 80 * i, np.uint8), "label": i}


@pytest.fixture
def tiny(data_dir):
  tfds.disable_progress_bar()
  Tiny(data_dir=data_dir).download_and_prepare()
  return data_dir


def test_any_dataset_by_name_with_split_expressions(tiny, config):
  split = open_tfds("tiny", tiny, "train[1:]", 3)
  batch = next(evaluation.eval_batches(split, config.data, batch_size=2, num_classes=3))
  assert sorted(batch["label"]) in ([0, 1], [0, 2], [1, 2])
  assert batch["image"].shape == (2, 32, 32, 3)


def test_a_dataset_of_other_classes_is_refused(tiny, tmp_path):
  """Where both have names: labels would count as what they are not."""
  shutil.copytree(tiny, tmp_path / "tfds")
  [folder] = (tmp_path / "tfds" / "tiny").iterdir()
  (folder / "label.labels.txt").write_text("ant\nbee\ncat\n")
  data = ml_collections.ConfigDict({"name": "tiny", "data_dir": str(tmp_path / "tfds")})
  for fine, note in (
    ((), ""),
    (("ant Formicidae", "bee", "cat"), ""),
    (("ant", "bee", "2"), "note: 1 classes of dataset 'tiny' are matched by number.*: its 'cat' counts as .* '2'"),
    (("0", "1", "2"), "note: 3 classes of dataset 'tiny' are matched by number.*: its 'ant' counts as .* '0'"),
  ):
    split = sources.open_split(data, "train", 3, fine)
    assert split.class_names == ("ant", "bee", "cat")
    assert re.fullmatch(note, split.note)
  with pytest.raises(UserError, match="its class 1 is 'bee', the checkpoint's 'cat'"):
    sources.open_split(data, "train", 3, ("ant", "cat", "bee"))
  (folder / "label.labels.txt").write_text("fruit apple\nfruit pear\nfruit plum\n")
  with pytest.raises(UserError, match="its class 2 is 'fruit plum', the checkpoint's 'fruit grape'"):
    sources.open_split(data, "train", 3, ("fruit apple", "fruit pear", "fruit grape"))


def test_a_label_out_of_range_is_named(tiny, config):
  split = open_tfds("tiny", tiny, "train", 3)
  with pytest.raises(UserError, match="label 2 of example .* is out of range for num_classes=2"):
    list(evaluation.eval_batches(split, config.data, batch_size=3, num_classes=2))


@pytest.mark.parametrize(
  ("name", "split", "num_classes", "message"),
  [
    (
      "imagenet2012",
      "train",
      1000,
      "'imagenet2012' is not in .*; prepare it with: .*data.prepare --name=imagenet2012",
    ),
    ("mnist", "train", 1000, "'mnist' is not in .*; prepare it with: .* build mnist"),
    ("imagnet2012", "train", 1000, "did you mean imagenet2012"),
    ("digit", "train", 1000, r"did you mean .*\bdigits\b"),
    ("foldr", "train", 1000, r"did you mean .*\bfolder\b"),
    ("tiny", "test", 3, "no split 'test'; it has train"),
    ("tiny", "train[:0]", 3, r"split 'train\[:0\]' of dataset 'tiny' is empty"),
    ("tiny", "train", 2, "has 3 classes, the network num_classes=2; set --config.model.num_classes=3"),
  ],
)
def test_bad_datasets_in_one_line(tiny, name, split, num_classes, message):
  with pytest.raises(UserError, match=message):
    open_tfds(name, tiny, split, num_classes)


def test_an_unfinished_preparation_is_to_be_finished(tmp_path):
  (tmp_path / "tiny/1.0.0.incomplete").mkdir(parents=True)
  with pytest.raises(UserError, match=r"has not ended \(1.0.0.incomplete\): start data.prepare again"):
    open_tfds("tiny", str(tmp_path), "train", 3)


def test_a_cut_shard_is_an_error_not_a_smaller_dataset(tiny, tmp_path, config):
  shutil.copytree(tiny, tmp_path / "tfds")
  shard = next((tmp_path / "tfds" / "tiny").rglob("*.tfrecord-*"))
  split = open_tfds("tiny", str(tmp_path / "tfds"), "train", 3)
  whole = shard.read_bytes()
  record = 12 + int.from_bytes(whole[:8], "little") + 4  # TFRecord: length, its checksum, data, its checksum
  for kept in (whole[:record], whole[: record + 40]):  # whole records missing; a torn one
    shard.write_bytes(kept)
    with pytest.raises(UserError, match="^tiny train cannot be read: [^{]*; prepare it again$"):
      list(evaluation.eval_batches(split, config.data, batch_size=3, num_classes=3))
    for config.data.shuffle_bytes in (1 << 30, 1):  # held in memory; read in every epoch
      with pytest.raises(UserError, match="^tiny train cannot be read: [^{]*; prepare it again$"):
        next(training.train_batches(split, config.data, batch_size=3, num_classes=3, seed=0, start_step=0))
  shard.unlink()
  with pytest.raises(UserError, match="lacks 1 of its files, tiny-train.tfrecord-00000-of-00001"):
    open_tfds("tiny", str(tmp_path / "tfds"), "train", 3)
