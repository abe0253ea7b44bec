"""Examples of detection: the whole picture on a canvas, and the boxes in it. See `stream/examples.py`.

The picture lies at the top left of a square canvas of `image_size` pixels; the rest is black. It is resized, bilinear,
so that its short side has `short_side` pixels. If that would make its long side longer than `long_side` pixels, it is
resized so that its long side has `long_side` pixels. This is the rule of the Caffe code that the paper used
(py-faster-rcnn, 600 and 1,000 pixels).
"""

import numpy as np
import tensorflow as tf

from shufflenet_jax.data import pictures
from shufflenet_jax.data.max_boxes import MAX_BOXES
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import augment
from shufflenet_jax.errors import UserError


def training(encoded: tf.Tensor, objects: dict, seed: tf.Tensor, config, only_jpegs: bool) -> dict:
  """The picture, mirrored in half of the cases.

  Args:
    encoded: the picture's file.
    objects: what `sources.objects` parses.
    seed: int32 (2,).
    config: the config's `data` section.
    only_jpegs: not used.
  """
  image = pictures.decode(encoded)
  boxes = objects["boxes"]
  if config.flip:
    flip = tf.random.stateless_uniform((), seed) < 0.5
    image = tf.cond(flip, lambda: image[:, ::-1], lambda: image)
    boxes = tf.where(flip, _mirrored(boxes), boxes)
  return _example(image, objects | {"boxes": boxes}, config)


def _mirrored(boxes: tf.Tensor) -> tf.Tensor:
  """Boxes (m, 4) of fractions of the picture, mirrored left to right."""
  ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
  return tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=-1)


def evaluation(encoded: tf.Tensor, objects: dict, config) -> dict:
  """The picture as it is."""
  return _example(pictures.decode(encoded), objects, config)


def _example(image: tf.Tensor, objects: dict, config) -> dict:
  """
  Args:
    image: uint8 (h, w, 3).
    objects: as `sources.objects.open_objects` describes it.
    config: the config's `data` section.

  Returns:
    What `of_picture` returns; `boxes` in pixels of the canvas; `label`, `crowd`, `area` and `num_boxes` as they are.
  """
  picture = of_picture(image, config)
  boxes = objects["boxes"] * tf.tile(picture["size"], [2])
  return picture | {"boxes": boxes} | {name: objects[name] for name in ("label", "crowd", "area", "num_boxes")}


def of_picture(image: tf.Tensor, config) -> dict:
  """A decoded picture, uint8 (h, w, 3), on its canvas.

  Returns:
    `image` uint8 (image_size, image_size, 3); `size` float32 (2,), the picture's height and width on the canvas; and
    `original_size` float32 (2,), before it was resized.
  """
  original = tf.shape(image)[:2]
  sides = tf.cast(original, tf.float32)
  scale = tf.minimum(config.short_side / tf.reduce_min(sides), config.long_side / tf.reduce_max(sides))
  size = tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)
  resized = augment.to_uint8(tf.image.resize(image, size, antialias=config.antialias))
  canvas = tf.image.pad_to_bounding_box(resized, 0, 0, config.image_size, config.image_size)
  canvas.set_shape((config.image_size, config.image_size, 3))
  return {"image": canvas, "size": tf.cast(size, tf.float32), "original_size": sides}


def blank(config, training: bool) -> dict:
  """A black picture without boxes."""
  return {
    "image": np.zeros((config.image_size, config.image_size, 3), np.uint8),
    "size": np.ones(2, np.float32),
    "original_size": np.ones(2, np.float32),
    "boxes": np.zeros((MAX_BOXES, 4), np.float32),
    "label": np.full(MAX_BOXES, -1, np.int32),
    "crowd": np.zeros(MAX_BOXES, bool),
    "area": np.zeros(MAX_BOXES, np.float32),
    "num_boxes": np.int32(0),
  }


def check(batch: dict[str, np.ndarray], num_classes: int, split: Split) -> None:
  """Raises a `UserError` if a picture has too many boxes, or the label of one is not below `num_classes`."""
  for example_id in batch["id"][batch["num_boxes"] > MAX_BOXES].tolist():
    raise UserError(split.explain(example_id))
  wrong = np.argwhere((batch["label"] < -1) | (batch["label"] >= num_classes))
  if wrong.size:
    example, box = wrong[0]
    raise UserError(
      f"label {batch['label'][example, box]} of a box of example {batch['id'][example]} in {split.name} is out of range"
      f" for num_classes={num_classes}"
    )
