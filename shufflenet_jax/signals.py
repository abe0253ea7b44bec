"""Ctrl-C, handled so that it is neither lost nor breaks anything off inside JAX.

Python turns Ctrl-C into a KeyboardInterrupt wherever the main thread happens to be. Inside a callback from XLA such an
exception is lost, and elsewhere in XLA it can crash the process. While the main thread compiles, Python does not even
run signal handlers, for minutes. So commands call `end_at_once_on_interrupt`: a thread, which Python's C code wakes for
each signal, ends the process. A part of a command that must not be broken off runs within `held`.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

from shufflenet_jax.errors import INTERRUPTED

# How many more times Ctrl-C is left to the handler that `held` installs. The thread must know, because it learns of a
# signal before that handler runs.
_held_interrupts = 0
_listening = False  # whether there is that thread


def end_at_once_on_interrupt() -> None:
  """From now on Ctrl-C ends the process with status 130 and one line. To be called once, by the main thread."""
  global _listening
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  signal.signal(signal.SIGINT, lambda *_: None)  # the thread acts; two that did could each print their line
  threading.Thread(target=_listen, args=(reader,), daemon=True).start()
  _listening = True


def _listen(reader: int) -> None:
  global _held_interrupts
  held_before = False
  while True:
    for number in os.read(reader, 64):
      if number != signal.SIGINT:
        continue
      if not _held_interrupts:
        _end("interrupted again; ended at once" if held_before else "interrupted")
      _held_interrupts -= 1
      held_before = True


def _end(text: str) -> None:
  # Not `print`: the main thread may hold the lock of sys.stderr. For the same reason stdout is not flushed.
  with contextlib.suppress(OSError):
    os.write(2, f"{text}\n".encode())
  os._exit(INTERRUPTED)


@contextlib.contextmanager
def held(note: Callable[[], None]):
  """Within it the first Ctrl-C calls `note` in the main thread; a second one does what Ctrl-C did before.

  Does nothing in other threads than the main one, to which Python gives its signals.
  """
  global _held_interrupts
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before, noted = signal.getsignal(signal.SIGINT), False

  def handler(*_):
    nonlocal noted
    noted = True
    signal.signal(signal.SIGINT, before)
    note()

  _held_interrupts = 1
  signal.signal(signal.SIGINT, handler)
  try:
    yield
  finally:
    # The thread may learn of the Ctrl-C that was handled here only now, and would take it for another one.
    until = time.monotonic() + 1
    while noted and _listening and _held_interrupts and time.monotonic() < until:
      time.sleep(0.001)
    _held_interrupts = 0
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def finished_first():
  """Within it the first Ctrl-C waits until the end, where it raises KeyboardInterrupt; a second one does not wait."""
  asked = []
  with held(lambda: asked.append(True)):
    yield
  if asked:
    raise KeyboardInterrupt


def raise_interrupt() -> None:
  """For `held`, around code that cleans up after a KeyboardInterrupt and does not run JAX."""
  raise KeyboardInterrupt
