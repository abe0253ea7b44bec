"""The training order of a split that fits in memory: read once, each epoch shuffled as a whole.

Reading a small split from its files would take each of 64 readers a few milliseconds in every epoch: with 40 pictures,
training ran at a twentieth of the rate that it had with 10,000. Here an epoch costs no more than a shuffle of its ids.
"""

import tensorflow as tf

from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import ranges

MAX_BYTES = 64 << 20


def fits(split: Split, shuffle_bytes: int) -> bool:
  """Whether the undecoded records are few enough for every process to keep all of them in memory."""
  return split.num_examples * split.record_bytes <= min(MAX_BYTES, shuffle_bytes)


def records(split: Split, batch_size: int, seed: int, start_step: int, process: tuple[int, int]) -> tf.data.Dataset:
  """A process's endless (key, id, record): its rows of one global batch after another.

  An epoch's order is a function of (seed, epoch) alone, and batches are taken from the epochs laid end to end. So every
  example comes once in an epoch, for any number of processes and from any step on.

  Args:
    split: one that `fits`; all of it is read before this function returns.
    batch_size: global, a multiple of the number of processes.
    seed: of shuffling.
    start_step: the step of the first batch.
    process: (index, count).

  Returns:
    `key` int32, a function of (seed, epoch); `id` int64; `record` as `split.read` gives it.

  Raises:
    tf.errors.OpError: the records cannot be read.
  """
  index, count = process
  n, position, local_size = split.num_examples, start_step * batch_size, batch_size // count
  all_records = _read(split)

  def epoch_order(epoch):
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    order = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), seeds)
    key = tf.cast(tf.random.experimental.stateless_fold_in(seeds, 0)[0], tf.int32)
    return tf.fill((n,), key), order

  def own_rows(*columns):
    return tuple(column[index * local_size :][:local_size] for column in columns)

  epochs = tf.data.Dataset.range(position // n, tf.int64.max).map(epoch_order, 2, deterministic=True)
  ids = epochs.unbatch().skip(position % n).batch(batch_size).map(own_rows).prefetch(2).unbatch()
  return ids.map(lambda key, i: (key, i, tf.nest.map_structure(lambda column: tf.gather(column, i), all_records)))


def _read(split: Split):
  """All records in the order of their ids: one tensor for each part of a record, (num_examples, ...)."""
  dataset = ranges.exactly(split.read_all(parallel=True), split.num_examples)
  ids, columns = dataset.batch(split.num_examples).get_single_element()
  order = tf.argsort(ids)
  return tf.nest.map_structure(lambda column: tf.gather(column, order), columns)
