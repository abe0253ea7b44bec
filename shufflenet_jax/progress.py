"""The progress of a long command, on one line, and how long it will take."""

import time
from typing import TextIO

LOG_SECONDS = 10


class ProgressLine:
  """A line that is rewritten in place on a terminal; elsewhere, as in a log file, a new line every ten seconds.

  tqdm would write a carriage return into log files instead of separate lines.
  """

  def __init__(self, stream: TextIO, terminal_seconds: float):
    """
    Args:
      stream: standard output or error.
      terminal_seconds: the least time between two updates on a terminal.
    """
    self._stream, self._on_terminal = stream, stream.isatty()
    self._seconds = terminal_seconds if self._on_terminal else LOG_SECONDS
    self._last = time.monotonic()

  def show(self, text: str) -> None:
    """Prints the text, unless the last update was too recent."""
    if time.monotonic() - self._last >= self._seconds:
      self._last = time.monotonic()
      print(f"\r\x1b[K{text}" if self._on_terminal else f"{text}\n", end="", file=self._stream, flush=True)

  def clear(self) -> None:
    """Clears the line, to be called before anything else is printed that may go to the same terminal."""
    if self._on_terminal:
      print("\r\x1b[K", end="", file=self._stream, flush=True)


def amount(num_bytes: float) -> str:
  """`143.2 GB`, `8.5 MB` or `310 kB`."""
  if num_bytes >= 1e9:
    return f"{num_bytes / 1e9:,.1f} GB"
  return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


def duration(seconds: float) -> str:
  """`2 h 05 min`, `3 min 20 s` or `8 s`."""
  seconds = round(seconds)
  if seconds >= 3600:
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
  return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
