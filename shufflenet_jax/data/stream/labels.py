"""Examples of classification: a crop of the picture, and its label. See `stream/examples.py`."""

import numpy as np
import tensorflow as tf

from shufflenet_jax.data import pictures
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import augment
from shufflenet_jax.errors import UserError


def training(encoded: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, config, only_jpegs: bool) -> dict:
  """A random crop.

  Args:
    encoded: the picture's file.
    label: its class, an integer scalar.
    seed: int32 (2,).
    config: the config's `data` section.
    only_jpegs: whether to assume that the file is a JPEG, and fail if it is not; this saves the check of its format.
  """
  crop = augment.random_crop_of_jpeg if only_jpegs else _crop_of_any
  image = crop(encoded, config.image_size, config.min_crop_area, config.max_crop_aspect, seed)
  image = augment.resize_crop(image, config.image_size, config.color_jitter, seed + 1)
  return {"image": image, "label": tf.cast(label, tf.int32)} | _flip(config, seed + 2)


def _crop_of_any(encoded: tf.Tensor, *arguments) -> tf.Tensor:
  return tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: augment.random_crop_of_jpeg(encoded, *arguments),
    lambda: augment.random_crop(pictures.decode(encoded), *arguments),
  )


def _flip(config, seed) -> dict:
  return {"flip": tf.random.stateless_uniform((), seed) < 0.5} if config.flip else {}


def evaluation(encoded: tf.Tensor, label: tf.Tensor, config) -> dict:
  """The central crop."""
  return of_picture(pictures.decode(encoded), config) | {"label": tf.cast(label, tf.int32)}


def of_picture(image: tf.Tensor, config) -> dict:
  """The central crop of a decoded picture, uint8 (h, w, 3)."""
  return {"image": augment.center_crop(image, config.image_size, config.eval_resize, config.antialias)}


def blank(config, training: bool) -> dict:
  """A black picture of class 0."""
  flip = {"flip": np.bool_(False)} if training and config.flip else {}
  return {"image": np.zeros((config.image_size, config.image_size, 3), np.uint8), "label": np.int32(0)} | flip


def check(batch: dict[str, np.ndarray], num_classes: int, split: Split) -> None:
  """Raises a `UserError` if a label is not below `num_classes`."""
  wrong = np.flatnonzero((batch["label"] < 0) | (batch["label"] >= num_classes))
  if wrong.size:
    raise UserError(
      f"label {batch['label'][wrong[0]]} of example {batch['id'][wrong[0]]} in {split.name} is out of range for"
      f" num_classes={num_classes}"
    )
