"""Informs the user that another library, which retries silently, is waiting for a bucket."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from shufflenet_jax.storage import client, paths


@contextlib.contextmanager
def _watched(path: str) -> Iterator[list[float | None]]:
  """Yields a list of one value: the caller sets it to the time at which a wait begins, and to None when it ends.

  While a wait lasts longer than `client.NOTICE_SECONDS`, a notice is printed at that interval; for remote paths only.
  """
  since: list[float | None] = [None]
  done = threading.Event()

  def inform_user():
    while not done.wait(client.NOTICE_SECONDS / 10):
      began = since[0]
      late = time.monotonic() - began if began else 0
      if late > client.NOTICE_SECONDS:
        print(f"waiting for {path}, for {late:.0f} s so far", file=sys.stderr, flush=True)
        done.wait(client.NOTICE_SECONDS)

  if paths.is_remote(path):
    threading.Thread(target=inform_user, daemon=True).start()
  try:
    yield since
  finally:
    done.set()


@contextlib.contextmanager
def report_slow_read(path: str) -> Iterator[None]:
  """Informs the user, every half minute, while the block waits for another library that reads from `path`."""
  with _watched(path) as since:
    since[0] = time.monotonic()
    yield


def report_slow_reads(items: Iterator, path: str) -> Iterator:
  """Yields the items of an iterator that reads from `path`; informs the user, every half minute, while one is late."""
  with _watched(path) as since:
    while True:
      since[0] = time.monotonic()
      try:
        item = next(items)
      except StopIteration:
        return
      since[0] = None
      yield item
