"""Delays interrupts during a step that must not be interrupted."""

from __future__ import annotations

import contextlib
import signal


@contextlib.contextmanager
def interrupts_delayed(discard: bool = False):
  """Delays Ctrl-C, SIGTERM and SIGHUP until the end of the block: an interrupted request may leave a billed slice.

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
