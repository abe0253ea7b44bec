"""Pictures that cannot be decoded: reading on in spite of them, replacing them, and counting them.

Both streams first read in a quick form, which fails at such a picture. From there on they read in a careful form, which
marks the picture with `ok` False, and after some batches return to the quick form.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from shufflenet_jax import storage
from shufflenet_jax.data.split import Split
from shufflenet_jax.errors import UserError

Batch = dict[str, np.ndarray]

_FIRST_CAREFUL_BATCHES = 16


class BadPictures:
  """Counts the pictures that cannot be decoded and names each of them once.

  Attributes:
    ids: of the examples that this process could not decode so far.
  """

  def __init__(self, split: Split, field: str, limit: int, warn: Callable[[str], None]):
    """
    Args:
      split: explains why a picture cannot be decoded.
      field: the field of `config.data` that sets the limit.
      limit: how many are accepted.
      warn: called with one line for each picture.
    """
    self.ids: set[int] = set()
    self._split, self._field, self._limit, self._warn = split, field, limit, warn

  def add_all(self, batch: Batch) -> None:
    """Adds the examples of a batch whose `ok` is False; raises a UserError if they are too many."""
    for example_id in batch["id"][~batch["ok"]].tolist():
      self.add(example_id)

  def add(self, example_id: int) -> None:
    """Raises a UserError if the limit is exceeded."""
    if example_id in self.ids:
      return
    self.ids.add(example_id)
    reason = self._split.explain(example_id)
    if len(self.ids) > self._limit:
      so_far = f" ({len(self.ids)} pictures so far)" if self._limit else ""
      raise UserError(f"{reason}{so_far}; at most --config.data.{self._field}={self._limit} may be skipped")
    self._warn(f"skipped: {reason}")


def replace_by_neighbours(batch: Batch) -> Batch:
  """Replaces each bad row by the nearest good one before it, or if there is none, by the last good one of the batch.

  The batch is this process's part of the global batch. This is the only place where the examples of a training run
  depend on the number of processes.
  """
  ok = batch.pop("ok")
  if ok.all():
    return batch
  if not ok.any():
    raise UserError(f"none of the pictures {batch['id'].tolist()[:5]}... of a batch can be decoded")
  good = np.flatnonzero(ok)
  source = np.where(ok, np.arange(len(ok)), good[np.searchsorted(good, np.arange(len(ok))) - 1])
  return {key: values[source] for key, values in batch.items()}


def blank_on_failure(example: Callable[..., dict], blank: dict) -> Callable[..., dict]:
  """Makes a map function that never fails from one that fails at pictures that cannot be decoded.

  Args:
    example: (..., id, record) -> example.
    blank: an example without `id` and `ok`.

  Returns:
    The same function, except that it returns the blank example with `ok` False instead of failing.
  """

  def guarded(*args):
    instead = blank | {"id": args[-2], "ok": False}
    attempt = tf.data.Dataset.from_tensors(args).map(example).ignore_errors()
    return attempt.concatenate(tf.data.Dataset.from_tensors(instead)).take(1).get_single_element()

  return guarded


def quick_batches(
  examples: Callable[..., tf.data.Dataset], batch_size: int, start: int, split: Split
) -> Iterator[Batch]:
  """Yields batches, read in the quick form wherever possible.

  Careful reading takes a sixth longer per picture, and every restart takes time as well. How many of the
  pictures cannot be decoded is not known, so after each failure the careful form is kept for twice as many batches as
  after the last one.

  Args:
    examples: (first batch, careful) -> `tf.data.Dataset` of examples.
    batch_size: examples in a batch; a smaller last one is yielded too.
    start: the first batch.
    split: for messages.

  Raises:
    UserError: careful reading fails too, or the storage refuses access.
    RunFailed: the storage did not answer.
  """
  careful_left, next_careful = 0, _FIRST_CAREFUL_BATCHES
  while True:
    careful = careful_left > 0
    try:
      batches = examples(start, careful).batch(batch_size).prefetch(2).as_numpy_iterator()
      for batch in storage.report_slow_reads(batches, split.folder):
        yield batch
        start += 1
        careful_left -= careful
        if careful and not careful_left:
          break
      else:
        return
    except tf.errors.OpError as error:
      explained = storage.diagnose_read_error(error, split.folder)
      if isinstance(explained, storage.StorageError):  # the storage failed, which is no reason to suspect a picture
        raise explained from None
      if careful:
        remedy = "restore it, or prepare it again" if isinstance(explained, FileNotFoundError) else "prepare it again"
        raise UserError(f"{split.name} cannot be read: {_one_line(error)}; {remedy}") from None
      careful_left, next_careful = next_careful, 2 * next_careful


def _one_line(error: tf.errors.OpError) -> str:
  """The first line of TensorFlow's message, without the names of graph nodes."""
  return re.sub(r"{{.*?}}|\[+(Op:|{{node).*", "", error.message.splitlines()[0] if error.message else "").strip()[:200]
