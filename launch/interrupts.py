"""Delays interrupts while a step runs that must not be cut short."""

from __future__ import annotations

import contextlib
import signal


@contextlib.contextmanager
def interrupts_delayed(discard: bool = False):
  """Delays Ctrl-C, SIGTERM and SIGHUP until the end of the block: a request cut short may leave a billed slice behind.

  Args:
    discard: drop interrupts that arrive inside the block.
  """
  arrived = []
  previous = {
    s: signal.signal(s, lambda number, frame: arrived.append(number))
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(s) != signal.SIG_IGN  # nohup ignores SIGHUP
  }
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
    if arrived and not discard:
      raise KeyboardInterrupt
