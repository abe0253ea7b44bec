"""Streams: exactly once, the same after a resume, the same whatever the number of processes."""

import itertools
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from shufflenet_jax.data import augment, datasets, pipeline
from shufflenet_jax.errors import UserError


def open_digits(config, name):
  return datasets.open_split("digits", config.data.data_dir, name, 10)


def batches(config, start_step=0, seed=0, process=(0, 1), batch_size=64):
  split = open_digits(config, "train")
  return pipeline.train_batches(
    split, config.data, batch_size=batch_size, num_classes=10, seed=seed, start_step=start_step, process=process
  )


def assert_same(a, b):
  for key in a | b:
    np.testing.assert_array_equal(a[key], b[key])


def test_digits_are_scikit_learns_each_in_one_split(config):
  source = load_digits()
  expected = sorted(
    (int(t), np.round(i * 255 / 16).astype(np.uint8).tobytes()) for i, t in zip(source.images, source.target)
  )
  seen, sizes = [], {}
  for name in ("train", "test"):
    split = open_digits(config, name)
    examples = list(pipeline.raw_examples(split).as_numpy_iterator())
    sizes[name] = np.bincount([label for _, _, label in examples], minlength=10)
    seen += [(int(label), image[..., 0].tobytes()) for _, image, label in examples]
  assert sorted(seen) == expected
  np.testing.assert_array_equal(sizes["test"], (sizes["train"] + sizes["test"]) // 5)


def test_every_epoch_holds_every_example_once(config):
  n = open_digits(config, "train").num_examples
  ids = np.concatenate([b["id"] for b in itertools.islice(batches(config), 3 * n // 64 + 1)])
  epochs = ids[: 3 * n].reshape(3, n)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
  assert not (epochs[0] == epochs[1]).all()
  assert not (epochs[0] == np.arange(n)).all()


@pytest.mark.parametrize("start_step", [1, 22, 40])  # within the first epoch, at its end, beyond it
def test_resumes_at_a_step_bit_for_bit(config, start_step):
  expected = next(itertools.islice(batches(config), start_step, None))
  assert_same(next(batches(config, start_step)), expected)


def test_is_a_function_of_the_seed(config):
  first, again, other = (next(batches(config, seed=s)) for s in (0, 0, 1))
  assert_same(first, again)
  assert not (first["id"] == other["id"]).all()


def test_augmentation_differs_between_epochs(config):
  n = open_digits(config, "train").num_examples
  by_id = [dict(zip(b["id"].tolist(), b["image"])) for b in itertools.islice(batches(config, batch_size=n), 2)]
  pairs = [(by_id[0][i], by_id[1][i]) for i in range(50)]
  assert sum((a == b).all() for a, b in pairs) < 25  # 8x8 pixels have few distinct crops


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batch(config, count):
  whole = next(batches(config, 30))
  parts = [next(batches(config, 30, process=(p, count))) for p in range(count)]
  assert_same({k: np.concatenate([p[k] for p in parts]) for k in whole}, whole)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 100), (4, 100), (8, 800), (2, 64)])
def test_evaluation_sees_every_example_once(config, count, batch_size):
  split = open_digits(config, "test")
  streams = [
    list(pipeline.eval_batches(split, config.data, batch_size=batch_size, num_classes=10, process=(p, count)))
    for p in range(count)
  ]
  assert len({len(s) for s in streams}) == 1
  assert {b["image"].shape[0] for s in streams for b in s} == {batch_size // count}
  ids = np.concatenate([b["id"][b["mask"]] for s in streams for b in s])
  np.testing.assert_array_equal(np.sort(ids), np.arange(split.num_examples))


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
  split = datasets.open_split("tiny", tiny, "train[1:]", 3)
  batch = next(pipeline.eval_batches(split, config.data, batch_size=2, num_classes=3))
  assert sorted(batch["label"]) in ([0, 1], [0, 2], [1, 2])
  assert batch["image"].shape == (2, 32, 32, 3)


def test_a_label_out_of_range_is_named(tiny, config):
  split = datasets.open_split("tiny", tiny, "train", 3)
  with pytest.raises(UserError, match="label 2 of example .* is out of range for num_classes=2"):
    list(pipeline.eval_batches(split, config.data, batch_size=3, num_classes=2))


@pytest.mark.parametrize(
  ("name", "split", "num_classes", "message"),
  [
    (
      "imagenet2012",
      "train",
      1000,
      "'imagenet2012' is not in .*; prepare it with: .* build imagenet2012",
    ),
    ("imagnet2012", "train", 1000, "did you mean imagenet2012"),
    ("tiny", "test", 3, "no split 'test'; it has train"),
    ("tiny", "train[:0]", 3, r"split 'train\[:0\]' of dataset 'tiny' is empty"),
    ("tiny", "train", 2, "has 3 classes, the network num_classes=2; set --config.model.num_classes=3"),
  ],
)
def test_bad_datasets_in_one_line(tiny, name, split, num_classes, message):
  with pytest.raises(UserError, match=message):
    datasets.open_split(name, tiny, split, num_classes)


def test_a_cut_shard_is_an_error_not_a_smaller_dataset(tiny, tmp_path, config):
  shutil.copytree(tiny, tmp_path / "tfds")
  shard = next((tmp_path / "tfds" / "tiny").rglob("*.tfrecord-*"))
  split = datasets.open_split("tiny", str(tmp_path / "tfds"), "train", 3)
  whole = shard.read_bytes()
  record = 12 + int.from_bytes(whole[:8], "little") + 4  # TFRecord: length, its checksum, data, its checksum
  for kept in (whole[:record], whole[: record + 40]):  # whole records missing; a torn one
    shard.write_bytes(kept)
    with pytest.raises(UserError, match="^tiny train cannot be read: [^{]*; prepare it anew$"):
      list(pipeline.eval_batches(split, config.data, batch_size=3, num_classes=3))
    with pytest.raises(UserError, match="tiny train cannot be read"):
      next(pipeline.train_batches(split, config.data, batch_size=3, num_classes=3, seed=0, start_step=0))
  shard.unlink()
  with pytest.raises(UserError, match="lacks 1 of its files, tiny-train.tfrecord-00000-of-00001"):
    datasets.open_split("tiny", str(tmp_path / "tfds"), "train", 3)


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
  split = datasets.open_folder(str(folder), CLASSES)
  [batch] = pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3)
  seen = sorted(zip(batch["label"][batch["mask"]].tolist(), batch["image"][batch["mask"]].mean((1, 2, 3)).tolist()))
  assert seen == [(1, 10.0), (2, 20.0), (2, 30.0)]


def test_bad_folders(folder, tmp_path):
  with pytest.raises(UserError, match="absent is not a folder"):
    datasets.open_folder(str(tmp_path / "absent"), CLASSES)
  (folder / "n04").mkdir()
  with pytest.raises(UserError, match="n04 is no class of the checkpoint; its 3 classes are named as"):
    datasets.open_folder(str(folder), CLASSES)
  (tmp_path / "empty" / "n03").mkdir(parents=True)
  with pytest.raises(UserError, match="holds no images"):
    datasets.open_folder(str(tmp_path / "empty"), CLASSES)


def test_what_a_folder_holds_besides_is_counted(folder):
  (folder / "loose.png").write_bytes((folder / "n03" / "z.png").read_bytes())
  (folder / "n01").mkdir()
  assert datasets.open_folder(str(folder), CLASSES).note == (
    "ignored: 2 files that are no images in a class folder (loose.png first);"
    " 1 class folders without images (n01 first)"
  )
  (folder / "loose.png").unlink()
  (folder / "n01").rmdir()
  (folder / "n03" / "notes.txt").unlink()
  assert datasets.open_folder(str(folder), CLASSES).note == ""


def test_webp_is_read(folder, config):
  from PIL import Image

  Image.fromarray(np.full((33, 40, 3), 90, np.uint8)).save(folder / "n03" / "z.webp", lossless=True)
  split = datasets.open_folder(str(folder), CLASSES)
  [batch] = pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3)
  assert sorted(batch["image"].mean((1, 2, 3))) == [10, 20, 30, 90]


@pytest.mark.parametrize("spoil", [lambda b: b"", lambda b: b"no picture", lambda b: b[: len(b) // 2]])
@pytest.mark.parametrize("name", ["y.JPG", "z.png"])
def test_a_picture_that_cannot_be_decoded_is_named(folder, config, spoil, name):
  [path] = folder.rglob(name)
  path.write_bytes(spoil(path.read_bytes()))
  split = datasets.open_folder(str(folder), CLASSES)
  for batch_size in (1, 4):
    with pytest.raises(UserError) as raised:
      list(pipeline.eval_batches(split, config.data, batch_size=batch_size, num_classes=3))
    assert str(raised.value).startswith(f"{path} cannot be decoded (.jpg, ")
    assert not re.search("{{|Op:|prepare", str(raised.value))


def test_a_picture_that_is_gone_is_named(folder, config):
  split = datasets.open_folder(str(folder), CLASSES)
  (folder / "n03" / "z.png").unlink()
  with pytest.raises(UserError, match="z.png cannot be read: .*No such file"):
    list(pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3))


def test_evaluation_crop_is_the_centre_and_keeps_colours_in_order():
  image = np.zeros((40, 64, 3), np.uint8)
  image[..., 0] = np.arange(64) * 4  # red grows to the right
  image[..., 2] = (np.arange(40) * 6)[:, None]  # blue grows downwards
  crop = augment.center_crop(augment.decode(tf.io.encode_png(image)), 32, 40, antialias=False).numpy()
  np.testing.assert_array_equal(crop, image[4:36, 16:48])


def test_training_crops_vary_in_area_within_bounds_and_flip_half():
  """On a picture whose pixels hold their own place, a crop shows where it was taken."""
  place = np.stack(np.meshgrid(np.arange(200), np.arange(200)), -1).astype(np.uint8)
  image = tf.constant(np.concatenate([place, place[..., :1]], -1))

  def crops(flip, min_area):
    for seed in range(120):
      yield augment.random_resized_crop(image, 50, min_area, 4 / 3, flip, True, tf.constant([seed, 1])).numpy()

  spans = [np.ptp(c[..., :2].astype(int), axis=(0, 1)) + 4 for c in crops(False, 0.25)]  # + half a pixel at each edge
  areas = np.prod(spans, axis=-1) / 200**2
  assert 0.2 < areas.min() < 0.4
  assert 0.85 < areas.max() < 1.05
  mirrored = [c[0, 0, 0] > c[0, -1, 0] for c in crops(True, 0.25)]
  assert 0.35 < np.mean(mirrored) < 0.65
  assert not any(c[0, 0, 0] > c[0, -1, 0] for c in crops(False, 0.25))
