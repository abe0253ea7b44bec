"""The order of training for a split that fits in memory: read once, each epoch shuffled as a whole.

Reading a small set from its files takes a few milliseconds for each of 64 readers in every epoch, so that 40 pictures
were trained on at a twentieth of the rate of 10,000. Here an epoch costs one shuffle of its ids.
"""

import tensorflow as tf

from shufflenet_jax.data.split import Split

MOST_BYTES = 64 << 20


def fits(split: Split, shuffle_bytes: int) -> bool:
  """Whether the records, undecoded, are few enough to be held by every process."""
  return split.num_examples * split.record_bytes <= min(MOST_BYTES, shuffle_bytes)


def records(split: Split, batch_size: int, seed: int, start_step: int, process: tuple[int, int]) -> tf.data.Dataset:
  """A process's endless (key, id, record), rows of one global batch after the other.

  An epoch's order is a function of (seed, epoch) alone, and the batches are cut
  from the epochs laid end to end: every example comes once an epoch, on any
  number of processes and from any step on.

  Args:
    split: what `fits`; all of it is read before this returns.
    batch_size: global, a multiple of the number of processes.
    seed: of shuffling.
    start_step: the first batch is this step's.
    process: (index, count).

  Returns:
    `key` int32, a function of (seed, epoch); `id` int64; `record` as `split.read` gives it.

  Raises:
    tf.errors.OpError: the records cannot be read.
  """
  n, place, local = split.num_examples, start_step * batch_size, batch_size // process[1]
  held = _read(split)

  def epoch_order(epoch):
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    order = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), seeds)
    key = tf.cast(tf.random.experimental.stateless_fold_in(seeds, 0)[0], tf.int32)
    return tf.fill((n,), key), order

  def own_rows(*columns):
    return tuple(column[process[0] * local :][:local] for column in columns)

  epochs = tf.data.Dataset.range(place // n, tf.int64.max).map(epoch_order, 2, deterministic=True)
  ids = epochs.unbatch().skip(place % n).batch(batch_size).map(own_rows).prefetch(2).unbatch()
  return ids.map(lambda key, i: (key, i, tf.nest.map_structure(lambda column: tf.gather(column, i), held)))


def _read(split: Split):
  """All records, in the order of their ids, as one tensor each for what a record consists of."""
  numbers = tf.range(len(split.sizes), dtype=tf.int64)
  found = split.read(numbers, tf.zeros_like(numbers), tf.constant(split.sizes), parallel=True)
  ids, held = whole(found, split.num_examples).batch(split.num_examples).get_single_element()
  order = tf.argsort(ids)
  return tf.nest.map_structure(lambda column: tf.gather(column, order), held)


def whole(dataset: tf.data.Dataset, count) -> tf.data.Dataset:
  """The first `count` elements of a dataset; where it has fewer, tf.errors.InvalidArgumentError in their place.

  TFRecord files that were cut off between two records end early and in silence.
  """

  def missing(i):
    with tf.control_dependencies([tf.debugging.Assert(i < 0, ["records are missing"])]):
      return tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), dataset.element_spec)

  return dataset.concatenate(tf.data.Dataset.range(1).map(missing)).take(count)
