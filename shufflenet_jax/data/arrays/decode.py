"""Decodes all pictures of a split into memory, once."""

import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from shufflenet_jax import progress
from shufflenet_jax.data import pictures
from shufflenet_jax.data.arrays.arrays import Arrays, check_fits, check_labels
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import augment, ranges, undecodable
from shufflenet_jax.errors import UserError

_BATCH = 512


def decode(
  split: Split, side: int, *, num_classes: int, field: str, max_bad: int, warn: Callable[[str], None] = print
) -> Arrays:
  """All pictures of a split, in the order of their ids.

  Pictures that all have one size are kept as they are. Otherwise each becomes a square: its short side is resized to
  `side` pixels, and what sticks out at both ends of the long side is cut off.

  Args:
    split: what to read.
    side: pixels, see above; `config.data.eval_resize`.
    num_classes: every label must be below it.
    field: the field of `config.data` that sets `max_bad`, for messages.
    max_bad: how many pictures that cannot be decoded may be left out.
    warn: called with one line for each of them.

  Raises:
    UserError: the pictures do not fit, more than `max_bad` cannot be decoded, a file is damaged, or a label is out of
      range.
    RunFailed: the storage did not answer.
  """
  shape = _common_shape(split)
  arrays = _decode_as(split, shape, None, num_classes, field, max_bad, warn) if shape else None
  if arrays is None:
    arrays = _decode_as(split, (side, side, 3), side, num_classes, field, max_bad, warn)
  return arrays


def _common_shape(split: Split) -> tuple[int, ...] | None:
  """The shape of the first pictures, if they all have the same; None otherwise."""
  shapes = set()
  try:
    for _, record in split.read_all().take(16):
      shapes.add(tuple(pictures.decode(split.parse(record)[0]).shape))
  except tf.errors.OpError:  # reported when all are decoded
    pass
  return shapes.pop() if len(shapes) == 1 else None


def _decode_as(split: Split, shape, side: int | None, num_classes: int, field: str, max_bad: int, warn):
  """The split with pictures of this shape; None if `side` is None and a picture has another one."""
  check_fits(split.name, (split.num_examples, *shape))

  def example(i, record):
    encoded, label = split.parse(record)
    image = pictures.decode(encoded)
    same = tf.constant(True) if side else tf.reduce_all(tf.shape(image) == shape)
    image = augment.center_crop(image, side, side, antialias=True) if side else image
    image = tf.cond(same, lambda: image, lambda: tf.zeros(shape, tf.uint8))
    image.set_shape(shape)
    return {"image": image, "label": tf.cast(label, tf.int32), "id": i, "ok": True, "same": same}

  blank = {"image": np.zeros(shape, np.uint8), "label": np.int32(0), "same": True}

  def examples(first_batch: int, careful: bool) -> tf.data.Dataset:
    function = undecodable.blank_on_failure(example, blank) if careful else example
    records = ranges.exactly(split.read_all(parallel=True), split.num_examples).skip(first_batch * _BATCH)
    return records.map(tf.autograph.experimental.do_not_convert(function), tf.data.AUTOTUNE, deterministic=True)

  images = np.empty((split.num_examples, *shape), np.uint8)
  labels = np.empty(split.num_examples, np.int32)
  bad = undecodable.BadPictures(split, field, max_bad, warn)
  line, done = progress.ProgressLine(sys.stdout, terminal_seconds=0.5), 0
  for batch in undecodable.quick_batches(examples, _BATCH, 0, split):
    if not batch["same"].all():
      line.clear()
      return None
    bad.add_all(batch)
    images[batch["id"]], labels[batch["id"]] = batch["image"], batch["label"]
    done += len(batch["id"])
    line.show(f"decoding {split.name} into memory: {done:,} of {split.num_examples:,} pictures")
  line.clear()
  good = np.setdiff1d(np.arange(split.num_examples), np.array(list(bad.ids), int))
  if not good.size:
    raise UserError(f"none of the {split.num_examples} pictures of {split.name} can be decoded")
  if bad.ids:
    images, labels = images[good], labels[good]
  check_labels(split.name, labels, num_classes)
  return Arrays(split.name, images, labels, split.class_names, split.dataset_classes, len(bad.ids), note=split.note)
