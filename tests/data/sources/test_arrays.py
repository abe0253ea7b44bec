"""Pictures in `.npz` files, and other sources decoded into memory."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data import opening, pictures
from shufflenet_jax.data.arrays import arrays as arrays_in_memory
from shufflenet_jax.data.sources import arrays
from shufflenet_jax.errors import UserError
from tests.pictures import picture, put

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def saved(config, tmp_path):
  """A config of pictures in `tmp_path/train.npz`, of two classes."""
  arrays.save(str(tmp_path / "train.npz"), IMAGES, LABELS, ["ant", "bee"])
  config.data.name, config.data.data_dir, config.model.num_classes = "arrays", str(tmp_path), 3
  return config


def test_arrays_come_back_as_they_were_saved(saved):
  split = opening.open_split(saved, "train")
  np.testing.assert_array_equal(split.images, IMAGES)
  np.testing.assert_array_equal(split.labels, LABELS)
  assert (split.class_names, split.dataset_classes, split.num_examples) == (("ant", "bee", "2"), 2, 6)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"images": IMAGES[..., :1]}, r"holds images uint8 \(6, 40, 40, 1\).*it has to hold images, uint8 \(n, h, w, 3\)"),
    ({"images": IMAGES.astype(np.float32)}, "holds images float32"),
    ({"labels": LABELS[:5]}, r"labels int64 \(5,\)"),
    ({"labels": LABELS.astype(float)}, "labels float64"),
    ({"labels": LABELS.astype(np.uint64) * 2**32}, "label 4294967296 of example 1 in"),
    ({"labels": LABELS + 1}, "label 2 of example 1 in .*train.npz is out of range for num_classes=2"),
    ({"class_names": np.array([b"ant", b"bee"])}, r"class_names \|S3"),
    ({"class_names": np.array(["a", "b", "c", "d"])}, "has 4 classes, the network num_classes=3"),
    ({"class_names": np.array(["a", "b", "c"])}, "has no picture of class 'c'"),
  ],
)
def test_what_is_wrong_is_said(saved, tmp_path, change, message):
  content = {"images": IMAGES, "labels": LABELS, "class_names": np.array(["ant", "bee"])} | change
  np.savez(tmp_path / "train.npz", **content)
  with pytest.raises(UserError, match=message):
    opening.open_split(saved, "train", every_class=True)


def test_a_damaged_or_absent_file_is_named(saved, tmp_path):
  (tmp_path / "train.npz").write_bytes((tmp_path / "train.npz").read_bytes()[:1000])
  with pytest.raises(UserError, match=r"train.npz cannot be read \(.*\); it has to hold images"):
    opening.open_split(saved, "train")
  np.save(tmp_path / "x.npy", IMAGES)
  with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
    other.writestr("images", b"text")
  np.savez_compressed(tmp_path / "packed.npz", images=IMAGES, labels=LABELS, class_names=np.array(["ant", "bee"]))
  packed = bytearray((tmp_path / "packed.npz").read_bytes())
  packed[200:260] = bytes(60)
  pickled = io.BytesIO()
  np.savez(pickled, images=np.array([None, {}], dtype=object), labels=LABELS, class_names=np.array(["ant", "bee"]))
  for content in (
    (tmp_path / "x.npy").read_bytes(), (tmp_path / "other.zip").read_bytes(), bytes(packed), pickled.getvalue(), b"",
  ):  # fmt: skip
    (tmp_path / "train.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"train.npz cannot be read \(.*\); it has to hold images"):
      opening.open_split(saved, "train")
  with pytest.raises(UserError, match=r"val.npz does not exist; set --config.data.data_dir to a folder with val.npz"):
    opening.open_split(saved, "val")


def test_other_classes_than_the_networks_are_refused(saved):
  with pytest.raises(UserError, match="other classes than the network: its class 1 is 'bee'"):
    opening.open_split(saved, "train", class_names=("ant", "wasp"))


@pytest.fixture
def folder(config, tmp_path):
  """Six pictures of one size in two classes, in memory."""
  for i in range(6):
    put(tmp_path / "train" / ("ant", "bee")[i % 2] / f"{i}.jpg", picture(36, 48))
  config.data.name, config.data.data_dir, config.data.in_memory = "folder", str(tmp_path), True
  config.model.num_classes = 2
  return config


def test_pictures_of_one_size_are_kept_as_they_are(folder, tmp_path):
  split = opening.open_split(folder, "train")
  assert split.images.shape == (6, 36, 48, 3)
  paths = sorted((tmp_path / "train").rglob("*.jpg"))
  decoded = np.stack([pictures.decode(tf.constant(path.read_bytes())) for path in paths])
  np.testing.assert_array_equal(split.images, decoded)
  np.testing.assert_array_equal(split.labels, [0, 0, 0, 1, 1, 1])


def test_pictures_of_different_sizes_become_squares(folder, tmp_path):
  put(tmp_path / "train/bee/9.jpg", picture(50, 30))
  folder.data.eval_resize = 33
  split = opening.open_split(folder, "train")
  assert split.images.shape == (7, 33, 33, 3)
  assert split.images.std() > 10


def test_a_picture_that_cannot_be_decoded_is_left_out_and_counted(folder, tmp_path, capsys):
  put(tmp_path / "train/ant/1.jpg", picture(36, 48)[:100])
  folder.data.max_bad_train = 1
  split = opening.open_split(folder, "train")
  assert (len(split.images), split.bad_pictures, split.num_examples) == (6, 1, 7)
  np.testing.assert_array_equal(split.labels, [0, 0, 0, 1, 1, 1])
  assert "skipped: " in capsys.readouterr().out
  folder.data.max_bad_train = 0
  with pytest.raises(UserError, match=r"1.jpg.*at most --config.data.max_bad_train=0 may be skipped"):
    opening.open_split(folder, "train")


def test_a_class_whose_pictures_are_all_bad_is_refused(folder, tmp_path):
  put(tmp_path / "train/wasp/1.jpg", picture(36, 48)[:100])
  folder.model.num_classes = 3
  with pytest.raises(UserError, match="has no picture of class 'wasp'"):
    opening.open_split(folder, "train", every_class=True)


def test_a_damaged_dataset_is_named(config, tmp_path):
  config.data.data_dir, config.data.in_memory = str(tmp_path), True
  opening.open_split(config, "train")
  (path,) = tmp_path.rglob("digits-train*")
  path.write_bytes(path.read_bytes()[:20] + bytes(40) + path.read_bytes()[60:])
  with pytest.raises(UserError, match="digits train cannot be read: .*prepare it again"):
    opening.open_split(config, "train")


def test_a_split_that_does_not_fit_is_refused_before_it_is_decoded(folder, monkeypatch):
  monkeypatch.setattr(arrays_in_memory, "MEMORY_SHARE", 1e-9)
  with pytest.raises(UserError, match="6 pictures of 36x48 pixels take 0.0 GB.*set --config.data.in_memory=false"):
    opening.open_split(folder, "train")
