"""Which examples each reader of the training stream reads, by arithmetic alone.

The training stream is an endless sequence of examples, one epoch of `num_examples` after another, divided into global
batches. A fixed number of readers shares every batch: reader r fills a contiguous range of rows, the same in every
step. In each epoch the dataset's chunks are laid end to end in an order drawn for that epoch, and this sequence of
records is divided into one contiguous range per reader, with one record for each row that the reader fills in the
epoch.

So every example comes once in an epoch, whichever process runs a reader. And how much a reader has read by some step
is known without reading anything. Below, `position` is a number of
examples, counted from the beginning of the stream.
"""

import math

import tensorflow as tf

MAX_READERS = 64


def count(batch_size: int) -> int:
  """How many readers share a global batch: the greatest common divisor of its size and 64, if that is 16 or more.

  Otherwise it is the largest divisor of the batch size that is at most 64.

  It does not depend on the number of processes.
  """
  common = math.gcd(batch_size, MAX_READERS)
  return common if common >= 16 else max(d for d in range(1, MAX_READERS + 1) if batch_size % d == 0)


def examples_below(reader, position, batch_size: int, num_readers: int):
  """How many of the stream's examples before `position` come from readers below `reader`; ints or int64 tensors."""
  rows = reader * (batch_size // num_readers)
  return position // batch_size * rows + tf.minimum(position % batch_size, rows)


def range_in_epoch(epoch, reader, num_examples: int, batch_size: int, num_readers: int):
  """(first, last + 1) of a reader's records in an epoch, as positions in the epoch's order; int64 tensors."""

  def boundary(r):
    begin, end = (examples_below(r, (epoch + e) * num_examples, batch_size, num_readers) for e in (0, 1))
    return end - begin

  return boundary(reader), boundary(reader + 1)


def done_in_epoch(epoch, reader, position: int, num_examples: int, batch_size: int, num_readers: int):
  """How many of an epoch's records a reader has yielded when the stream has reached `position`; 0 before the epoch."""

  def done_below(r):
    begin = epoch * num_examples
    now = tf.maximum(tf.constant(position, tf.int64), begin)
    return examples_below(r, now, batch_size, num_readers) - examples_below(r, begin, batch_size, num_readers)

  return done_below(reader + 1) - done_below(reader)
