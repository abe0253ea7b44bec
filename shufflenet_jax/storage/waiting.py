"""Telling the user that another library, which tries again in silence, is waiting for a bucket."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from shufflenet_jax.storage import bucket, paths


@contextlib.contextmanager
def _watched(path: str) -> Iterator[list[float | None]]:
  """Yields a list of one value: since when the caller waits, or None. Nothing is told of local paths."""
  since: list[float | None] = [None]
  done = threading.Event()

  def tell():
    while not done.wait(bucket.WORD_SECONDS / 10):
      began = since[0]
      late = time.monotonic() - began if began else 0
      if late > bucket.WORD_SECONDS:
        print(f"waiting for {path}, for {late:.0f} s by now", file=sys.stderr, flush=True)
        done.wait(bucket.WORD_SECONDS)

  if paths.is_remote(path):
    threading.Thread(target=tell, daemon=True).start()
  try:
    yield since
  finally:
    done.set()


@contextlib.contextmanager
def waiting(path: str) -> Iterator[None]:
  """Around reading by another library: tells the user, each half minute, that it takes long."""
  with _watched(path) as since:
    since[0] = time.monotonic()
    yield


def patiently(items: Iterator, path: str) -> Iterator:
  """The items of an iterator that reads from `path`; tells the user, each half minute, when the next one is late."""
  with _watched(path) as since:
    while True:
      since[0] = time.monotonic()
      try:
        item = next(items)
      except StopIteration:
        return
      since[0] = None
      yield item
