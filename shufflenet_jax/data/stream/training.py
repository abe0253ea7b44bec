"""The training stream: endless, shuffled and augmented, a function of (seed, step) alone."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import from_files, in_memory, labels, readers, undecodable
from shufflenet_jax.data.stream.undecodable import Batch
from shufflenet_jax.errors import UserError


def train_batches(
  split: Split,
  config,
  *,
  batch_size: int,
  num_classes: int,
  seed: int,
  start_step: int,
  kind=labels,
  process: tuple[int, int] = (0, 1),
  warn: Callable[[str], None] = print,
) -> Iterator[Batch]:
  """Endless training batches from `start_step` on.

  The global batch of a step, and each image in it, are functions of (seed, step) alone: the same after a resume, and
  for any number of processes. The steps before `start_step` are neither read nor decoded, except for the beginning of a
  window that is shuffled as a whole. An undecodable picture is replaced by a neighbour from the same process's part of
  the batch, the only place where results depend on the number of processes.

  Args:
    split: what to read.
    config: the config's `data` section.
    batch_size: global.
    num_classes: every label must be below it.
    seed: of shuffling and augmentation.
    start_step: the step of the first batch.
    kind: of examples, one of `examples.KINDS`.
    process: (index, count); a process reads and yields its contiguous part of each batch.
    warn: called with one line for each picture that is skipped.

  Yields:
    Batches of `batch_size // count` examples, see the package's docstring.

  Raises:
    UserError: a label is out of range, more than `config.max_bad_train` pictures cannot be decoded, a file is damaged,
      or the number of processes does not divide the number of readers.
    RunFailed: the storage did not answer.
  """
  _, count = process
  bad = undecodable.BadPictures(split, "max_bad_train", config.max_bad_train, warn)

  def examples(step, careful):
    return train_examples(
      split, config, batch_size, seed=seed, start_step=step, kind=kind, process=process, careful=careful
    )

  for batch in undecodable.quick_batches(examples, batch_size // count, start_step, split):
    kind.check(batch, num_classes, split)
    bad.add_all(batch)
    yield undecodable.replace_by_neighbours(batch)


def train_examples(
  split: Split,
  config,
  batch_size: int,
  *,
  seed: int,
  start_step: int,
  kind=labels,
  process: tuple[int, int] = (0, 1),
  careful: bool = False,
) -> tf.data.Dataset:
  """A process's rows of the global batches, one example after another, each with `ok`; see `train_batches`.

  The quick form assumes JPEGs if the split's first pictures are JPEGs, and fails at a picture that cannot be decoded.
  The careful form takes everything that `pictures.decode` does and never fails. Where the quick form does not fail,
  both give the same pixels.
  """
  _, count = process
  num_readers = readers.count(batch_size)
  if num_readers % count:
    raise UserError(
      f"config.batch_size={batch_size} is read by {num_readers} readers, which do not divide over {count} processes;"
      f" a multiple of {max(count, readers.MAX_READERS)} does"
    )
  if in_memory.fits(split, config.shuffle_bytes):
    records = in_memory.records(split, batch_size, seed, start_step, process)
  else:
    records = from_files.records(split, config.shuffle_bytes, batch_size, seed, start_step, process)
  only_jpegs = not careful and _begins_with_jpegs(split)

  def example(key, i, record):
    seed = tf.stack([key, tf.cast(i, tf.int32)])
    return kind.training(*split.parse(record), seed, config, only_jpegs) | {"id": i, "ok": True}

  if careful:
    example = undecodable.blank_on_failure(example, kind.blank(config, training=True))
  # There is nothing for autograph to convert, and finding that out would take seconds.
  example = tf.autograph.experimental.do_not_convert(example)
  return records.map(example, tf.data.AUTOTUNE, deterministic=True)


def _begins_with_jpegs(split: Split) -> bool:
  chunks = tf.range(min(4, len(split.chunk_sizes)), dtype=tf.int64)
  records = split.read(chunks, tf.zeros_like(chunks), tf.ones_like(chunks))
  return all(tf.io.is_jpeg(split.parse(record)[0]) for _, record in records)
