"""How far a long command is, on one line."""

import time


class ProgressLine:
  """One line, rewritten on a terminal; elsewhere one every ten seconds."""

  def __init__(self, stream, terminal_seconds: float):
    """
    Args:
      stream: standard output or error.
      terminal_seconds: the least time between two texts on a terminal.
    """
    self._stream, self._on_terminal = stream, stream.isatty()
    self._seconds = terminal_seconds if self._on_terminal else 10
    self._last = time.monotonic()

  def show(self, text: str) -> None:
    """Prints the text, unless the last one is too recent."""
    if time.monotonic() - self._last >= self._seconds:
      self._last = time.monotonic()
      print(f"\r\x1b[K{text}" if self._on_terminal else f"{text}\n", end="", file=self._stream, flush=True)

  def clear(self) -> None:
    """Before something else is printed, which may be to the same terminal."""
    if self._on_terminal:
      print("\r\x1b[K", end="", file=self._stream, flush=True)
