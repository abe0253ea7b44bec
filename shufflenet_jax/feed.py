"""Batches to the devices ahead of time, and how long the devices wait for them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator

import jax


class Feed:
  """Prepares batches in a thread, `ahead` of them beforehand.

  Attributes:
    waited_seconds: how long `get` had nothing to give although the devices were idle.
  """

  def __init__(self, batches: Iterator, put: Callable, ahead: int = 2):
    """`put` takes a host batch of `batches` and begins its transfer, for instance `mesh.split_batch`."""
    self.waited_seconds = 0.0
    self._queue = queue.Queue(ahead)
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._work, args=(batches, put), daemon=True)
    self._thread.start()

  def _work(self, batches, put):
    try:
      for batch in batches:
        if not self._offer((put(batch), None)):
          return
      self._offer((None, StopIteration("no more batches")))
    except Exception as error:  # for the thread that asks for batches
      self._offer((None, error))

  def _offer(self, item) -> bool:
    while not self._stop.is_set():
      try:
        self._queue.put(item, timeout=0.1)
        return True
      except queue.Full:
        pass
    return False

  def get(self, last_result):
    """The next batch.

    Args:
      last_result: what the devices compute last, as dispatched. Where no batch is there, it is awaited first: time
        from then on is the devices'.

    Raises:
      what `batches` or `put` raised.
    """
    if self._queue.empty():
      jax.block_until_ready(last_result)
      began = time.perf_counter()
      batch, error = self._queue.get()
      self.waited_seconds += time.perf_counter() - began
    else:
      batch, error = self._queue.get()
    if error is not None:
      raise error
    return batch

  def close(self) -> None:
    """Ends the thread; what it had prepared is dropped."""
    self._stop.set()
    self._thread.join()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()
