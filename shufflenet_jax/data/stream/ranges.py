"""Reading a range of examples from a split's chunks, with an error if the files hold fewer."""

import tensorflow as tf

from shufflenet_jax.data.split import Split


def read_range(split: Split, order, first, last, parallel: bool = False) -> tf.data.Dataset:
  """(id, record) of the examples [first, last) of the split's chunks, laid end to end in an order.

  Args:
    split: what to read.
    order: int64 (chunks,), the numbers of all chunks.
    first, last: int64 scalars.
    parallel: see `Split.read`.

  Reading raises tf.errors.InvalidArgumentError if the files end early.
  """
  sizes = tf.constant(split.chunk_sizes)
  records = split.read(*parts_of_chunks(order, sizes, first, last), parallel=parallel)
  return exactly(records, last - first)


def parts_of_chunks(order, sizes, first, last):
  """Which examples of which chunks make up the range [first, last) of chunks laid end to end.

  Args:
    order: int64 (chunks,), the chunks' numbers in the order they are laid.
    sizes: int64 (chunks,), examples in each chunk, by number.
    first, last: int64 scalars.

  Returns:
    (chunks, skips, takes), each int64 (n,): the number of every chunk that overlaps with the range, how many of its
    examples lie before the range, and how many in it.
  """
  ends = tf.cumsum(tf.gather(sizes, order))
  begin = tf.searchsorted(ends, [first], side="right", out_type=tf.int64)[0]
  end = tf.searchsorted(ends, [last], side="left", out_type=tf.int64)[0] + 1
  chunks, ends = order[begin:end], ends[begin:end]
  starts = ends - tf.gather(sizes, chunks)
  skips = tf.maximum(first - starts, 0)
  takes = tf.maximum(tf.minimum(last, ends) - starts - skips, 0)
  return chunks, skips, takes


def exactly(dataset: tf.data.Dataset, count) -> tf.data.Dataset:
  """The first `count` elements of a dataset, followed by tf.errors.InvalidArgumentError if there are fewer.

  A TFRecord file that is truncated between two records would otherwise end early without an error.
  """

  def missing(i):
    with tf.control_dependencies([tf.debugging.Assert(i < 0, ["records are missing"])]):
      return tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), dataset.element_spec)

  return dataset.concatenate(tf.data.Dataset.range(1).map(missing)).take(count)
