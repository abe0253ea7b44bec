"""The evaluation stream: every example exactly once over all processes, in equal numbers of full batches."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from shufflenet_jax.data import pictures
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import labels, ranges, undecodable
from shufflenet_jax.data.stream.undecodable import Batch


def eval_batches(
  split: Split,
  config,
  *,
  batch_size: int,
  num_classes: int,
  kind=labels,
  process: tuple[int, int] = (0, 1),
  warn: Callable[[str], None] = print,
) -> Iterator[Batch]:
  """Every example exactly once over all processes; the last batches are padded and masked.

  Args:
    split: what to read; each process reads its contiguous part.
    config: the config's `data` section.
    batch_size: global.
    num_classes: every label must be below it.
    kind: of examples, one of `examples.KINDS`.
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
    lambda start, careful: _examples(split, config, kind, process, start * local_size, careful), local_size, 0, split
  )
  one = kind.blank(config, training=False) | {"id": np.int64(0), "ok": np.bool_(False)}
  empty = {name: np.zeros((0, *value.shape), value.dtype) for name, value in one.items()}
  for _ in range(-(-split.num_examples // batch_size)):
    batch = next(batches, empty)
    kind.check(batch, num_classes, split)
    bad.add_all(batch)
    missing = local_size - len(batch["id"])
    padded = {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    yield padded | {"mask": padded.pop("ok")}


def _examples(split: Split, config, kind, process: tuple[int, int], skip: int, careful: bool) -> tf.data.Dataset:
  """A process's examples after the first `skip`, each with `ok`: whether its picture could be decoded."""
  index, count = process
  first, last = (tf.constant(split.num_examples * p // count, tf.int64) for p in (index, index + 1))
  order = tf.range(len(split.chunk_sizes), dtype=tf.int64)
  records = ranges.read_range(split, order, first, last, parallel=True).skip(skip)

  def example(i, record):
    return kind.evaluation(*split.parse(record), config) | {"id": i, "ok": True}

  make_example = undecodable.blank_on_failure(example, kind.blank(config, training=False)) if careful else example
  make_example = tf.autograph.experimental.do_not_convert(make_example)
  return records.map(make_example, tf.data.AUTOTUNE, deterministic=True)


def raw_examples(split: Split) -> tf.data.Dataset:
  """(id, image uint8 (h, w, 3), label int32) of every example, in order, as stored."""

  @tf.autograph.experimental.do_not_convert
  def decoded(i, record):
    encoded, label = split.parse(record)
    return i, pictures.decode(encoded), tf.cast(label, tf.int32)

  return split.read_all().map(decoded)
