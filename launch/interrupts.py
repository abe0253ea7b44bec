"""Interrupts that wait until a step which must not be cut short has ended."""

from __future__ import annotations

import contextlib
import signal


@contextlib.contextmanager
def interrupts_held(forget: bool = False):
  """Holds interrupts back until the end, or for good: what is broken off here leaves a slice that is billed."""
  held = []
  kept = {
    s: signal.signal(s, lambda number, frame: held.append(number))
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(s) != signal.SIG_IGN  # as under nohup
  }
  try:
    yield
  finally:
    for number, handler in kept.items():
      signal.signal(number, handler)
    if held and not forget:
      raise KeyboardInterrupt
