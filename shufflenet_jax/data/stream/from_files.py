"""The training order of a split that does not fit in memory: read again in every epoch, shuffled a window at a time."""

import numpy as np
import tensorflow as tf

from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import ranges, readers


def records(
  split: Split, shuffle_bytes: int, batch_size: int, seed: int, start_step: int, process: tuple[int, int]
) -> tf.data.Dataset:
  """The same as `in_memory.records`, but read from files by the process's share of the readers.

  Args:
    split: what to read.
    shuffle_bytes: memory for undecoded records, over all processes.
    batch_size: global.
    seed: of shuffling.
    start_step: the step of the first batch.
    process: (index, count); the count divides the number of readers.
  """
  index, count = process
  num_readers = readers.count(batch_size)
  own = num_readers // count

  @tf.autograph.experimental.do_not_convert
  def read(reader):
    return _reader_records(split, reader, shuffle_bytes, batch_size, num_readers, seed, start_step)

  return tf.data.Dataset.range(index * own, (index + 1) * own).interleave(
    read,
    cycle_length=own,
    block_length=batch_size // num_readers,
    num_parallel_calls=min(own, 16),
    deterministic=True,
  )


def _reader_records(split, reader, shuffle_bytes: int, batch_size: int, num_readers: int, seed: int, start_step: int):
  """A reader's endless (key, id, record) from a step on; `key` int32 is a function of (seed, epoch).

  Records are shuffled within windows of the reader's range. While one window is shuffled, the next one is read, which
  may belong to the next epoch. A stream that starts within a window reads that window from its beginning; earlier
  windows are not read.
  """
  n, position = split.num_examples, start_step * batch_size
  # Two windows are in memory: one being shuffled, one being read.
  window = tf.constant(max(1, shuffle_bytes // (2 * num_readers * split.record_bytes)), tf.int64)

  def epoch_windows(epoch):
    first, last = readers.range_in_epoch(epoch, reader, n, batch_size, num_readers)
    done = readers.done_in_epoch(epoch, reader, position, n, batch_size, num_readers)
    begin = done // window * window
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    order = tf.random.experimental.stateless_shuffle(tf.range(len(split.chunk_sizes), dtype=tf.int64), seeds)
    key = tf.cast(tf.random.experimental.stateless_fold_in(seeds, 0)[0], tf.int32)

    def described(i, columns):
      window_first = begin + i * window
      window_seed = (seed * 1_000_003 + epoch) * 4_099 + window_first * num_readers + reader
      return key, window_seed, tf.maximum(done - window_first, 0), columns

    return ranges.read_range(split, order, first + begin, last).window(window).enumerate().map(described)

  def shuffled(key, window_seed, skip, columns):
    window_records = tf.data.Dataset.zip(columns).shuffle(window, seed=window_seed, reshuffle_each_iteration=False)
    return window_records.skip(skip).map(lambda i, record: (key, i, record))

  epochs = tf.data.Dataset.range(position // n, np.iinfo(np.int64).max)
  return epochs.flat_map(epoch_windows).prefetch(1).flat_map(shuffled)
