"""Which example stands where in the endless training stream, by arithmetic alone.

The stream is cut into epochs of `num_examples` and into global batches. A fixed
number of readers share every batch: reader r fills its rows, a contiguous run
of them, in every step. An epoch's records, chunks of the dataset in an order
drawn for the epoch, are cut into one contiguous piece a reader, just as long
as the rows that it fills in the epoch. So every example comes once an epoch,
whoever runs the readers, and what a reader has read by some step is known
without reading it.
"""

import math

import tensorflow as tf

MOST_READERS = 64


def count(batch_size: int) -> int:
  """How many readers share a global batch: 64, or what divides it; never a question of processes."""
  common = math.gcd(batch_size, MOST_READERS)
  return common if common >= 16 else max(d for d in range(1, MOST_READERS + 1) if batch_size % d == 0)


def filled_before(reader, place, batch_size: int, readers: int):
  """How many of the stream's first `place` examples come from readers below `reader`; ints or int64 tensors."""
  rows = reader * (batch_size // readers)
  return place // batch_size * rows + tf.minimum(place % batch_size, rows)


def piece(epoch, reader, num_examples: int, batch_size: int, readers: int):
  """(first, last + 1) of a reader's records among an epoch's in the epoch's order; int64 tensors."""

  def in_epoch(r):
    ends = (filled_before(r, (epoch + e) * num_examples, batch_size, readers) for e in (0, 1))
    return -next(ends) + next(ends)

  return in_epoch(reader), in_epoch(reader + 1)


def done_before(epoch, reader, place: int, num_examples: int, batch_size: int, readers: int):
  """How many of an epoch's records a reader has given when the stream has reached `place`; 0 before the epoch."""

  def given(r):
    begin = epoch * num_examples
    now = tf.maximum(tf.constant(place, tf.int64), begin)
    return filled_before(r, now, batch_size, readers) - filled_before(r, begin, batch_size, readers)

  return given(reader + 1) - given(reader)


def cut(ends, order, sizes, first, last):
  """The part [first, last) of chunks laid end to end.

  Args:
    ends: int64 (chunks,), where each ends, in the order they are laid.
    order: int64 (chunks,), their numbers in that order.
    sizes: int64 (chunks,), examples of each, by number.
    first, last: int64.

  Returns:
    (numbers, skips, takes), int64 (n,): of each chunk that has a part in it, how many of its examples to pass over,
    and how many to take.
  """
  begin = tf.searchsorted(ends, [first], side="right", out_type=tf.int64)[0]
  end = tf.searchsorted(ends, [last], side="left", out_type=tf.int64)[0] + 1
  numbers, ends = order[begin:end], ends[begin:end]
  starts = ends - tf.gather(sizes, numbers)
  skips = tf.maximum(first - starts, 0)
  takes = tf.maximum(tf.minimum(last, ends) - starts - skips, 0)
  return numbers, skips, takes
