"""Datasets with boxes as TFDS has them: padded targets, and one line about datasets that do not fit."""

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.data.sources import objects
from shufflenet_jax.errors import UserError
from tests.annotated import opened, parsed
from tests.pictures import picture

SIZE = (20, 30)  # height and width of all pictures


class BoxesAndNumbers(tfds.core.GeneratorBasedBuilder):
  """What both datasets below share; a subclass has the features of an object and the boxes of each picture."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Image(), "image/filename": tfds.features.Text(), **self.MORE}
    features["objects"] = tfds.features.Sequence(
      {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["cat", "dog"]), **self.INNER}
    )
    return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    kinds = ("JPEG", "PNG", "JPEG")
    for i, (kind, boxes) in enumerate(zip(kinds, self.BOXES)):
      inner = [self.inner(j) | {"bbox": tfds.features.BBox(*box), "label": j % 2} for j, box in enumerate(boxes)]
      example = {"image": picture(*SIZE, kind=kind), "image/filename": f"{i}.jpg", "objects": inner}
      yield i, example | {key: 40 + i for key in self.MORE}


class LikeVoc(BoxesAndNumbers):
  """Like voc/2007: without ids and areas, and with is_difficult."""

  MORE = {}
  INNER = {"is_difficult": np.bool_, "is_truncated": np.bool_}
  BOXES = [
    [(0.0, 0.0, 0.5, 0.5), (0.2, 0.2, 0.2, 0.9), (0.25, 0.5, 1.0, 1.0)],
    [(0.5, 0.5, 1.0, 1.0)],
    [],
  ]

  def inner(self, j):
    return {"is_difficult": j == 2, "is_truncated": True}


class LikeCoco(BoxesAndNumbers):
  """Like coco/2017, with a picture of 101 boxes, and one of 101 of which one has no size."""

  MORE = {"image/id": np.int64}
  INNER = {"is_crowd": np.bool_, "area": np.int64, "id": np.int64}
  BOXES = [
    [(0.0, 0.0, 0.5, 0.5)] * 101,
    [(0.0, 0.0, 0.5, 0.5)] * 100 + [(0.5, 0.5, 0.5, 0.5)],
    [(0.0, 0.0, 0.5, 0.5)],
  ]

  def inner(self, j):
    return {"is_crowd": False, "area": 2**31 + j, "id": j}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("tfds"))
  tfds.disable_progress_bar()
  for builder in (LikeVoc, LikeCoco):
    builder(data_dir=folder).download_and_prepare()
  return folder


def open_objects(name, data_dir, split="train", num_classes=2, class_names=()):
  data = ml_collections.ConfigDict({"name": name, "data_dir": data_dir})
  return objects.open_objects(data, split, num_classes, class_names)


def test_voc_has_neither_ids_nor_areas(data_dir):
  split = open_objects("like_voc", data_dir)
  assert split.class_names == ("cat", "dog")
  assert split.num_examples == 3
  by_count = {int(targets["num_boxes"]): targets for _, targets in parsed(split).values()}
  assert sorted(by_count) == [0, 1, 2]
  two = by_count[2]
  np.testing.assert_allclose(two["boxes"][:2], [[0, 0, 0.5, 0.5], [0.25, 0.5, 1, 1]])
  assert two["label"][:3].tolist() == [0, 0, -1]  # the dog between them has no size
  assert two["crowd"][:3].tolist() == [False, True, False]
  np.testing.assert_allclose(two["area"][:3], [10 * 15, 15 * 15, 0])
  np.testing.assert_allclose(by_count[1]["area"][:2], [10 * 15, 0])  # of a PNG
  again = {int(targets["num_boxes"]): targets for _, targets in parsed(split).values()}
  assert {count: int(t["image_id"]) for count, t in again.items()} == {
    c: int(t["image_id"]) for c, t in by_count.items()
  }


def test_shapes_and_types_are_those_of_every_picture(data_dir):
  expected = {
    "boxes": ((100, 4), np.float32),
    "label": ((100,), np.int32),
    "crowd": ((100,), np.bool_),
    "area": ((100,), np.float32),
    "image_id": ((), np.int64),
    "num_boxes": ((), np.int32),
  }
  for name in ("like_voc", "like_coco"):
    split = open_objects(name, data_dir)
    dataset = split.read_all().map(lambda i, record, split=split: split.parse(record))
    image, targets = dataset.element_spec
    assert image.shape == ()
    assert {key: (tuple(spec.shape), spec.dtype.as_numpy_dtype) for key, spec in targets.items()} == expected
    for _, targets in dataset.as_numpy_iterator():
      padding = targets["label"] == -1
      assert padding.sum() == max(0, 100 - targets["num_boxes"])
      assert not targets["boxes"][padding].any()
      assert not targets["area"][padding].any()
      assert not targets["crowd"][padding].any()


def test_more_than_100_boxes_are_marked_and_explained(data_dir):
  split = open_objects("like_coco", data_dir)
  ids = {int(split.parse(record)[1]["image_id"]): int(id) for id, record in split.read_all()}
  numbers = {image_id: int(targets["num_boxes"]) for image_id, (_, targets) in parsed(split).items()}
  assert numbers == {40: 101, 41: 100, 42: 1}
  reason = split.explain(ids[40])
  assert reason.startswith(
    f"example {ids[40]} of like_coco train, in like_coco-train.tfrecord-00000-of-00001: 0.jpg has"
  )
  assert "0.jpg has 101 boxes, at most 100 are supported" in reason
  assert "is not a picture that can be decoded" in split.explain(ids[41])


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [
    ("like_voc", {"num_classes": 1}, "has 2 classes, the network num_classes=1; set --config.model.num_classes=2"),
    (
      "like_voc",
      {"num_classes": 1, "class_names": ("cow",)},
      "has 2 classes, the network num_classes=1; choose a dataset of its classes: cow$",
    ),
    ("digits", {}, "dataset 'digits' has no boxes; a detector needs one with objects"),
    ("like_voc", {"class_names": ("cat", "cow")}, "its class 1 is 'dog', the checkpoint's 'cow'"),
    ("like_voc", {"split": "val"}, "no split 'val'; it has train"),
    ("bccd", {}, "'bccd' is not in .*; prepare it with: python -m tensorflow_datasets build bccd"),
  ],
)
def test_what_does_not_fit_in_one_line(data_dir, name, changes, message):
  with pytest.raises(UserError, match=message):
    open_objects(name, data_dir, **changes)


def test_a_dataset_of_classes_has_no_boxes(options):
  prepare(options)
  with pytest.raises(
    UserError, match="'flowers' has no boxes: its features are file_name, image, label; it needs image, and"
  ):
    opened(options)
