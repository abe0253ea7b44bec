"""Streams: exactly once, the same after a resume, the same whatever the number of processes."""

import itertools
import re
import shutil

import ml_collections
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from shufflenet_jax.data import augment, datasets, folders, pipeline
from shufflenet_jax.errors import UserError


def open_tfds(name, data_dir, split, num_classes):
  data = ml_collections.ConfigDict({"name": name, "data_dir": data_dir})
  return datasets.open_split(data, split, num_classes)


def open_digits(config, name):
  return open_tfds("digits", config.data.data_dir, name, 10)


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
  split = open_tfds("tiny", tiny, "train[1:]", 3)
  batch = next(pipeline.eval_batches(split, config.data, batch_size=2, num_classes=3))
  assert sorted(batch["label"]) in ([0, 1], [0, 2], [1, 2])
  assert batch["image"].shape == (2, 32, 32, 3)


def test_a_dataset_of_other_classes_is_refused(tiny, tmp_path):
  """Where both have names: labels would count as what they are not."""
  shutil.copytree(tiny, tmp_path / "tfds")
  [folder] = (tmp_path / "tfds" / "tiny").iterdir()
  (folder / "label.labels.txt").write_text("ant\nbee\ncat\n")
  data = ml_collections.ConfigDict({"name": "tiny", "data_dir": str(tmp_path / "tfds")})
  for fine in ((), ("ant Formicidae", "bee", "2"), ("0", "1", "2")):
    assert datasets.open_split(data, "train", 3, fine).class_names == ("ant", "bee", "cat")
  with pytest.raises(UserError, match="its class 1 is 'bee', the checkpoint's 'cat'"):
    datasets.open_split(data, "train", 3, ("ant", "cat", "bee"))


def test_a_label_out_of_range_is_named(tiny, config):
  split = open_tfds("tiny", tiny, "train", 3)
  with pytest.raises(UserError, match="label 2 of example .* is out of range for num_classes=2"):
    list(pipeline.eval_batches(split, config.data, batch_size=3, num_classes=2))


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
    ("tiny", "test", 3, "no split 'test'; it has train"),
    ("tiny", "train[:0]", 3, r"split 'train\[:0\]' of dataset 'tiny' is empty"),
    ("tiny", "train", 2, "has 3 classes, the network num_classes=2; set --config.model.num_classes=3"),
  ],
)
def test_bad_datasets_in_one_line(tiny, name, split, num_classes, message):
  with pytest.raises(UserError, match=message):
    open_tfds(name, tiny, split, num_classes)


def test_a_cut_shard_is_an_error_not_a_smaller_dataset(tiny, tmp_path, config):
  shutil.copytree(tiny, tmp_path / "tfds")
  shard = next((tmp_path / "tfds" / "tiny").rglob("*.tfrecord-*"))
  split = open_tfds("tiny", str(tmp_path / "tfds"), "train", 3)
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
    open_tfds("tiny", str(tmp_path / "tfds"), "train", 3)


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
    assert str(raised.value).startswith(f"{path} cannot be decoded (.jpg, ")
    assert not re.search("{{|Op:|prepare", str(raised.value))


def test_a_picture_that_is_gone_is_named(folder, config):
  split = folders.open_folder(str(folder), CLASSES)
  (folder / "n03" / "z.png").unlink()
  with pytest.raises(UserError, match="z.png cannot be read: .*No such file"):
    list(pipeline.eval_batches(split, config.data, batch_size=4, num_classes=3))


def test_evaluation_crop_is_the_centre_and_keeps_colours_in_order():
  image = np.zeros((40, 64, 3), np.uint8)
  image[..., 0] = np.arange(64) * 4  # red grows to the right
  image[..., 2] = (np.arange(40) * 6)[:, None]  # blue grows downwards
  crop = augment.center_crop(augment.decode(tf.io.encode_png(image)), 32, 40, antialias=False).numpy()
  np.testing.assert_array_equal(crop, image[4:36, 16:48])


def test_training_crops_vary_in_area_within_bounds():
  """On a picture whose pixels hold their own place, a crop shows where it was taken."""
  place = np.stack(np.meshgrid(np.arange(200), np.arange(200)), -1).astype(np.uint8)
  image = tf.constant(np.concatenate([place, place[..., :1]], -1))
  crops = [augment.random_crop(image, 50, 0.25, 4 / 3, tf.constant([seed, 1])).numpy() for seed in range(120)]
  areas = [c.shape[0] * c.shape[1] / 200**2 for c in crops]
  assert 0.2 < min(areas) < 0.3
  assert 0.9 < max(areas) <= 1
  assert all(2 / 3 < c.shape[0] / c.shape[1] < 3 / 2 for c in crops)
  corners = np.array([c[0, 0, :2] for c in crops])
  assert (corners.max(0) > 80).all()
  assert (corners.min(0) == 0).all()


def test_a_jpegs_crop_is_the_crop_of_the_decoded_jpeg():
  """Where it starts in the middle of a block too, up to how colours at its edge are interpolated."""
  smooth = np.linspace(0, 200, 300)[:, None, None] + np.linspace(0, 50, 240)[:, None] + np.array([0, 2, 4])
  encoded = tf.io.encode_jpeg(smooth.astype(np.uint8), quality=95)
  for seed in range(20):
    arguments = (121, 0.1, 4 / 3, tf.constant([seed, 5]))
    quick = augment.random_crop_of_jpeg(encoded, *arguments).numpy()
    whole = augment.random_crop(augment.decode(encoded), *arguments).numpy()
    np.testing.assert_allclose(quick.astype(int), whole.astype(int), atol=2)


@pytest.mark.parametrize(("ratio", "size"), [(1, 128), (2, 100), (4, 50), (8, 25)])
def test_large_jpegs_are_decoded_at_a_fraction_of_their_resolution(ratio, size):
  """The largest that leaves `size` pixels a side; the same part of the picture."""
  smooth = np.linspace(0, 200, 240)[:, None, None] + np.linspace(0, 50, 240)[:, None] + np.array([0, 2, 4])
  encoded = tf.io.encode_jpeg(smooth.astype(np.uint8), quality=95)
  crop = augment.random_crop_of_jpeg(encoded, size, 0.9, 1.05, tf.constant([3, 5])).numpy()
  whole = augment.random_crop_of_jpeg(encoded, 1000, 0.9, 1.05, tf.constant([3, 5])).numpy()
  assert size <= min(crop.shape[:2]) < 2 * size
  assert abs(crop.shape[0] * ratio - whole.shape[0]) < ratio
  np.testing.assert_allclose(crop.mean((0, 1)), whole.mean((0, 1)), atol=2)


def test_colour_jitter_stays_within_its_bounds():
  gray = tf.fill((8, 8, 3), tf.constant(100, tf.uint8))
  means = [augment.resize_crop(gray, 8, 0.4, tf.constant([seed, 0])).numpy().mean() for seed in range(100)]
  assert 60 <= min(means) < 70
  assert 130 < max(means) <= 140
  assert augment.resize_crop(gray, 8, 0.0, tf.constant([1, 0])).numpy().mean() == 100


def test_half_of_the_examples_are_mirrored_others_each_epoch(config):
  config.data.flip = True
  n = open_digits(config, "train").num_examples
  first, second = (dict(zip(b["id"].tolist(), b["flip"])) for b in itertools.islice(batches(config, batch_size=n), 2))
  assert 0.45 < np.mean(list(first.values())) < 0.55
  assert 0.4 < np.mean([first[i] == second[i] for i in range(n)]) < 0.6


def jpeg(value, height=50, width=60):
  return tf.io.encode_jpeg(np.full((height, width, 3), value, np.uint8)).numpy()


@pytest.fixture
def photographs(tmp_path, config):
  """Twenty JPEGs of two classes in folders, as configs/folder.py names them."""
  for i in range(20):
    path = tmp_path / "photographs" / ("train" if i < 16 else "val") / ("ant", "bee")[i % 2] / f"{i:02d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(10 * i))
  config.data.name, config.data.data_dir = "folder", str(tmp_path / "photographs")
  config.data.train_split, config.data.eval_split = "train", "val"
  return tmp_path / "photographs"


def stream(config, steps, batch_size=8, **options):
  """The first batches of the training stream of a folder."""
  split = datasets.open_split(config.data, config.data.train_split, 10, every_class=True)
  options = {"seed": 0, "start_step": 0} | options
  found = pipeline.train_batches(split, config.data, batch_size=batch_size, num_classes=10, **options)
  return list(itertools.islice(found, steps))


def test_a_folder_is_a_dataset(photographs, config):
  train = datasets.open_split(config.data, "train", 10, every_class=True)
  assert train.class_names[:3] == ("ant", "bee", "2")
  assert train.dataset_classes == 2
  seen = {int(i): (int(label), round(image.mean(), -1)) for b in stream(config, 2) for i, label, image in
          zip(b["id"], b["label"], b["image"])}  # fmt: skip
  assert seen == {i: (i // 8, 10 * (2 * (i % 8) + i // 8)) for i in range(16)}


@pytest.mark.parametrize("start_step", [0, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_processes_read_each_picture_of_a_folder_once_an_epoch(photographs, config, start_step, count):
  parts = [stream(config, 8 - start_step, 12, start_step=start_step, process=(p, count)) for p in range(count)]
  ids = np.concatenate([np.concatenate([b["id"] for b in step]) for step in zip(*parts)])
  expected = np.concatenate([b["id"] for b in stream(config, 8, 12)])[start_step * 12 :]
  np.testing.assert_array_equal(ids, expected)
  for epoch in np.split(np.concatenate([b["id"] for b in stream(config, 8, 12)]), 6):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(16))


SPOILT = {"text": b"no picture", "empty": b"", "cut": jpeg(100)[:300]}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_bad_picture_is_skipped_named_and_counted(photographs, config, spoilt):
  whole = stream(config, 6)
  (photographs / "train" / "bee" / "03.jpg").write_bytes(SPOILT[spoilt])
  config.data.max_bad_train = 1
  said = []
  skipped = stream(config, 6, say=said.append)
  [line] = said
  assert line.startswith(f"skipped: {photographs}/train/bee/03.jpg cannot be decoded")
  bad = 8 + 1  # the second of the second class
  for before, now in zip(whole, skipped):
    good = before["id"] != bad
    assert_same({k: v[good] for k, v in before.items()}, {k: v[good] for k, v in now.items()})
    assert bad not in now["id"]
    assert now["image"].shape == before["image"].shape
  resumed = stream(config, 2, start_step=4, say=said.append)
  for a, b in zip(resumed, skipped[4:]):
    assert_same(a, b)
  config.data.max_bad_train = 0
  with pytest.raises(UserError, match="03.jpg cannot be decoded .*; --config.data.max_bad_train=0 may be skipped"):
    stream(config, 6)


def test_a_picture_that_vanishes_is_skipped(photographs, config):
  split = datasets.open_split(config.data, "train", 10, every_class=True)
  (photographs / "train" / "bee" / "03.jpg").unlink()
  said = []
  options = {"batch_size": 16, "num_classes": 10, "seed": 0, "start_step": 0, "say": said.append}
  [batch] = itertools.islice(pipeline.train_batches(split, config.data, **options), 1)
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
  (folder / "07.jpg").write_bytes(jpeg(200, 12, 10))
  said = []
  [batch] = stream(config, 1, 16, say=said.append)
  means = dict(zip(batch["id"].tolist(), batch["image"].mean((1, 2, 3))))
  assert all(abs(means[8 + i] - 200) < 3 for i in range(4)), means
  assert not said


def test_evaluation_refuses_or_masks_bad_pictures(photographs, config):
  (photographs / "val" / "ant" / "18.jpg").write_bytes(b"no picture")
  split = datasets.open_split(config.data, "val", 10, ("ant", "bee"))

  def evaluated():
    return list(pipeline.eval_batches(split, config.data, batch_size=3, num_classes=10, say=said.append))

  said = []
  with pytest.raises(UserError, match="18.jpg cannot be decoded .*; --config.data.max_bad_eval=0 may be skipped"):
    evaluated()
  config.data.max_bad_eval = 1
  found = evaluated()
  assert [b["mask"].tolist() for b in found] == [[True, False, True], [True, False, False]]
  assert len(said) == 1


def test_folders_that_do_not_do(photographs, config):
  def opened(split="train", classes=10, **options):
    return datasets.open_split(config.data, split, classes, every_class=True, **options)

  with pytest.raises(UserError, match="no folder 'test'; config.data.train_split and eval_split can be train or val"):
    opened("test")
  with pytest.raises(UserError, match="train has 2 classes, the network num_classes=1; set .*num_classes=2"):
    opened(classes=1)
  (photographs / "val" / "cat").mkdir()
  with pytest.raises(UserError, match="cat is no class of the training data; its 2 classes are named as"):
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


def test_processes_must_divide_the_readers(photographs, config):
  with pytest.raises(UserError, match="batch_size=100 is read by 50 readers, which do not divide over 4 processes"):
    stream(config, 1, 100, process=(0, 4))


@pytest.mark.parametrize("calls", [1, 16])
def test_batches_do_not_depend_on_how_many_threads_make_them(photographs, config, calls, monkeypatch):
  expected = stream(config, 3)
  monkeypatch.setattr(tf.data, "AUTOTUNE", calls)
  for a, b in zip(stream(config, 3), expected):
    assert_same(a, b)


def test_a_dataset_in_windows_resumes_within_one(config):
  """Shuffled a few records at a time, as where memory is short."""
  config.data.shuffle_bytes = 2 * 64 * 3 * 400  # a few of a digit's records for each reader
  split = open_digits(config, "train")
  assert 1 < config.data.shuffle_bytes // (2 * 64 * split.record_bytes) < 10
  n = split.num_examples
  whole = list(itertools.islice(batches(config), 2 * n // 64 + 1))
  ids = np.concatenate([b["id"] for b in whole])[: 2 * n].reshape(2, n)
  for epoch in ids:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
  assert_same(next(batches(config, 17)), whole[17])
  assert_same(next(batches(config, 30)), whole[30])
