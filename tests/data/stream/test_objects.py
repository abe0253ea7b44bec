"""Boxes stay on their objects when a picture is resized, mirrored and laid on its canvas."""

import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data.sources import objects as source
from shufflenet_jax.data.stream import evaluation, examples, objects, training
from shufflenet_jax.errors import UserError
from tests.boxes import NAMES

DATA = {"short_side": 48, "long_side": 64, "image_size": 64, "flip": True, "antialias": True}
DATA |= {"shuffle_bytes": 1 << 20, "max_bad_train": 0, "max_bad_eval": 0, "name": "scenes"}


def config(**changes):
  return ml_collections.ConfigDict(DATA | changes)


def encoded(height, width, box=None):
  image = np.full((height, width, 3), 100, np.uint8)
  if box:
    ymin, xmin, ymax, xmax = box
    image[ymin:ymax, xmin:xmax] = 255
  return tf.io.encode_png(image)


def annotations(box, height, width):
  boxes = np.zeros((100, 4), np.float32)
  boxes[0] = np.array(box) / [height, width, height, width]
  label = np.full(100, -1, np.int32)
  label[0] = 2
  return {
    "boxes": boxes, "label": label, "crowd": np.zeros(100, bool), "area": np.zeros(100, np.float32),
    "image_id": np.int64(1), "num_boxes": np.int32(1),
  }  # fmt: skip


@pytest.mark.parametrize(
  ("height", "width", "size"),
  [(60, 80, (48, 64)), (80, 60, (64, 48)), (30, 90, (21, 64)), (50, 50, (48, 48)), (12, 12, (48, 48))],
)
def test_a_picture_keeps_its_shape_at_the_top_left(height, width, size):
  example = objects.of_picture(tf.fill((height, width, 3), tf.constant(200, tf.uint8)), config())
  assert example["size"].numpy().tolist() == list(size)
  assert example["original_size"].numpy().tolist() == [height, width]
  canvas = example["image"].numpy()
  assert canvas.shape == (64, 64, 3) and canvas.dtype == np.uint8
  assert (canvas[: size[0], : size[1]] == 200).all()
  assert not canvas[size[0] :].any() and not canvas[:, size[1] :].any()


def assert_box_is_on_the_object(example, tolerance=1.5):
  bright = np.argwhere(example["image"].numpy()[..., 0] > 180)
  found = [*bright.min(0), *(bright.max(0) + 1)]
  np.testing.assert_allclose(example["boxes"][0], found, atol=tolerance)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (90, 45), (200, 300)])
def test_boxes_follow_their_objects(height, width):
  box = (height // 4, width // 5, height // 2, width // 2)
  picture, targets = encoded(height, width, box), annotations(box, height, width)
  assert_box_is_on_the_object(objects.evaluation(picture, targets, config()))
  sides = set()
  for seed in range(8):
    example = objects.training(picture, targets, tf.constant([seed, 3]), config(), only_jpegs=False)
    assert_box_is_on_the_object(example)
    sides.add(float(example["boxes"][0, 1]) > 0.3 * float(example["size"][1]))
  assert sides == {True, False}
  example = objects.training(picture, targets, tf.constant([0, 3]), config(flip=False), only_jpegs=False)
  np.testing.assert_array_equal(example["boxes"], objects.evaluation(picture, targets, config())["boxes"])
  assert example["label"][0] == 2 and (example["label"][1:] == -1).all()


def test_streams_of_a_prepared_dataset(scenes):
  """Training is a function of (seed, step), evaluation has every picture once, boxes are where their objects are."""
  data = config(data_dir=str(scenes))
  split = source.open_objects(data, "train", 3)
  assert split.class_names == NAMES

  def batches(start):
    kind = examples.KINDS["objects"]
    return training.train_batches(split, data, batch_size=4, num_classes=3, seed=5, start_step=start, kind=kind)

  first, stream = next(batches(2)), batches(0)
  third = [next(stream) for _ in range(3)][2]
  for name, values in first.items():
    np.testing.assert_array_equal(values, third[name])
  validation = source.open_objects(data, "validation", 3)
  found = list(evaluation.eval_batches(validation, data, batch_size=2, num_classes=3, kind=examples.KINDS["objects"]))
  assert [batch["mask"].tolist() for batch in found] == [[True, True], [True, True], [True, False]]
  assert sorted(np.concatenate([batch["id"][batch["mask"]] for batch in found])) == list(range(5))
  num_boxes = 0
  for batch in found:
    for image, boxes, labels in zip(batch["image"], batch["boxes"], batch["label"]):
      for box, label in zip(boxes[labels >= 0][-1:], labels[labels >= 0][-1:]):  # the last one is on top
        y, x = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
        assert image[y, x].argmax() == label
        num_boxes += 1
  assert num_boxes == 4


def test_a_picture_with_too_many_boxes_is_named(scenes, monkeypatch):
  data = config(data_dir=str(scenes))
  split = source.open_objects(data, "validation", 3)
  batch = {"id": np.array([4, 2]), "num_boxes": np.array([100, 101]), "label": np.zeros((2, 100), int)}
  monkeypatch.setattr("shufflenet_jax.data.sources.objects.MAX_BOXES", 1)  # so that a small picture has too many
  with pytest.raises(UserError, match=r"\.png has \d boxes, at most 1 are supported"):
    objects.check(batch, 3, split)


def test_a_label_out_of_range_is_named(scenes):
  split = source.open_objects(config(data_dir=str(scenes)), "validation", 3)
  batch = {"id": np.array([4]), "num_boxes": np.array([1]), "label": np.array([[2] + [-1] * 99])}
  with pytest.raises(UserError, match=r"label 2 of a box of example 4 in scenes validation is out of range for num"):
    objects.check(batch, 2, split)
