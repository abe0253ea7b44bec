"""Batches to the devices ahead of time, and how long the devices wait for them."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

import jax

STOP_SECONDS = 0.2  # between two questions whether to stop
CLOSE_SECONDS = 2  # that `close` waits for the thread


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
      self._offer((None, None))
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

  def get(self, last_result, stop: Callable[[], bool] = lambda: False):
    """The next batch; None if there are no more, or as soon as `stop` says yes.

    Args:
      last_result: what the devices compute last, as dispatched. Where no batch is there, it is awaited first: time
        from then on is the devices'.
      stop: asked several times a second.

    Raises:
      what `batches` or `put` raised.
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

  def close(self) -> None:
    """Ends the thread and drops the batches it prepared. A thread that waits for late data ends when they come."""
    self._stop.set()
    self._thread.join(CLOSE_SECONDS)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()
