"""Transfers batches to the devices in advance, and measures how long the devices wait for them."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

import jax

STOP_SECONDS = 0.2  # between two calls of `stop`
CLOSE_SECONDS = 2  # how long the end of the context waits for the thread


class Feed:
  """Prepares batches in a background thread, from the beginning of the context to its end.

  At the end, batches that were prepared are dropped. A thread that is waiting for late data ends when they arrive.

  Attributes:
    waited_seconds: how long the devices were idle because the next batch was not ready.
    is_running: whether the thread is alive.
  """

  def __init__(self, batches: Iterator, put: Callable, ahead: int = 2):
    """
    Args:
      batches: host batches.
      put: takes a host batch, begins its transfer and returns what `get` is to return; for instance `mesh.split_batch`.
      ahead: how many batches to prepare before they are asked for.
    """
    self.waited_seconds = 0.0
    self._queue = queue.Queue(ahead)
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._work, args=(batches, put), name="data", daemon=True)

  @property
  def is_running(self) -> bool:
    return self._thread.is_alive()

  def _work(self, batches, put):
    try:
      for batch in batches:
        if not self._offer((put(batch), None)):
          return
      self._offer((None, None))
    except Exception as error:  # raised by `get`, in the caller's thread
      self._offer((None, error))

  def _offer(self, item) -> bool:
    while not self._stop.is_set():
      try:
        self._queue.put(item, timeout=0.1)
        return True
      except queue.Full:
        pass
    return False

  def get(self, last_result, stop: Callable[[], bool] = lambda: False):
    """The next batch; None if there are no more, or as soon as `stop` returns True.

    Args:
      last_result: the most recently dispatched result. If no batch is ready we block on it first, so that only device
        idle time counts as waiting.
      stop: called several times a second.

    Raises:
      Exception: whatever `batches` or `put` raised.
    """
    if is_late := self._queue.empty():
      jax.block_until_ready(last_result)
    began = time.perf_counter()
    batch, error = self._wait(stop)
    if is_late:
      self.waited_seconds += time.perf_counter() - began
    if error is not None:
      raise error
    return batch

  def _wait(self, stop):
    while not stop():
      with contextlib.suppress(queue.Empty):
        return self._queue.get(timeout=STOP_SECONDS)
    return None, None

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *exception):
    self._stop.set()
    self._thread.join(CLOSE_SECONDS)
