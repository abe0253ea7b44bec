"""The evaluation stream: every example exactly once over all processes, in equal numbers of full batches."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from shufflenet_jax.data import pictures
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import augment, ranges, undecodable
from shufflenet_jax.data.stream.undecodable import Batch


def eval_batches(
  split: Split,
  config,
  *,
  batch_size: int,
  num_classes: int,
  process: tuple[int, int] = (0, 1),
  warn: Callable[[str], None] = print,
) -> Iterator[Batch]:
  """Every example exactly once over all processes; the last batches are padded and masked.

  Args:
    split: what to read; each process reads its contiguous part.
    config: the config's `data` section.
    batch_size: global.
    num_classes: every label must be below it.
    process: (index, count). All processes yield the same number of batches.
    warn: called with one line for each picture that is left out.

  Yields:
    Batches of `batch_size // count` examples, see the package's docstring.

  Raises:
    UserError: a label is out of range, a file is damaged, or more than `config.max_bad_eval` pictures are bad.
    RunFailed: the storage did not answer.
  """
  _, count = process
  local_size = batch_size // count
  bad = undecodable.BadPictures(split, "max_bad_eval", config.max_bad_eval, warn)
  batches = undecodable.quick_batches(
    lambda start, careful: _examples(split, config, process, start * local_size, careful), local_size, 0, split
  )
  empty = {
    "image": np.zeros((0, config.image_size, config.image_size, 3), np.uint8),
    "label": np.zeros(0, np.int32),
    "id": np.zeros(0, np.int64),
    "ok": np.zeros(0, bool),
  }
  for _ in range(-(-split.num_examples // batch_size)):
    batch = next(batches, empty)
    undecodable.check_batch(batch, num_classes, split, bad)
    missing = local_size - len(batch["label"])
    padded = {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    yield padded | {"mask": padded.pop("ok")}


def _examples(split: Split, config, process: tuple[int, int], skip: int, careful: bool) -> tf.data.Dataset:
  """A process's examples after the first `skip`, each with `ok`: whether its picture could be decoded."""
  index, count = process
  first, last = (tf.constant(split.num_examples * p // count, tf.int64) for p in (index, index + 1))
  order = tf.range(len(split.chunk_sizes), dtype=tf.int64)
  records = ranges.read_range(split, order, first, last, parallel=True).skip(skip)

  def example(i, record):
    encoded, label = split.parse(record)
    image = augment.center_crop(pictures.decode(encoded), config.image_size, config.eval_resize, config.antialias)
    return {"image": image, "label": tf.cast(label, tf.int32), "id": i, "ok": True}

  shape = (config.image_size, config.image_size, 3)
  make_example = undecodable.black_on_failure(example, shape, {}) if careful else example
  make_example = tf.autograph.experimental.do_not_convert(make_example)
  return records.map(make_example, tf.data.AUTOTUNE, deterministic=True)


def raw_examples(split: Split) -> tf.data.Dataset:
  """(id, image uint8 (h, w, 3), label int32) of every example, in order, as stored."""

  @tf.autograph.experimental.do_not_convert
  def decoded(i, record):
    encoded, label = split.parse(record)
    return i, pictures.decode(encoded), tf.cast(label, tf.int32)

  return split.read_all().map(decoded)
