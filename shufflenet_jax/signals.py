"""Ctrl-C, handled so that it is never lost and never interrupts JAX halfway.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a callback from XLA that exception is
lost, and elsewhere in XLA it can crash the process. While the main thread compiles, Python cannot run signal handlers
at all, for minutes. So commands call `end_at_once_on_interrupt`, which starts a thread that Python's C code wakes for
each signal, and that thread ends the process. Code that must not be interrupted runs within `held`.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

from shufflenet_jax.errors import INTERRUPTED

# How many of the next Ctrl-Cs the thread leaves to the handler that `held` installs, instead of ending the process. The
# thread has to know, because it receives a signal before that handler runs.
_held_interrupts = 0
_listening = False  # whether the thread is running


def end_at_once_on_interrupt() -> None:
  """Makes Ctrl-C end the process with status 130 and one line. Call it once, from the main thread."""
  global _listening
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  signal.signal(signal.SIGINT, lambda *_: None)  # the thread ends the process, and nothing else may
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
  """A context in which the first Ctrl-C only calls `note`, in the main thread; a second one acts as it would outside.

  Does nothing in threads other than the main one, which is the only one to receive signals in Python.
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
    # The thread may not yet have received the Ctrl-C that the handler has noted. We wait until it has: if the thread
    # received it after the count is set to 0, it would end the process.
    until = time.monotonic() + 1
    while noted and _listening and _held_interrupts and time.monotonic() < until:
      time.sleep(0.001)
    _held_interrupts = 0
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def finished_first():
  """A context in which the first Ctrl-C takes effect at the end, as KeyboardInterrupt; a second one does not wait."""
  asked = []
  with held(lambda: asked.append(True)):
    yield
  if asked:
    raise KeyboardInterrupt


def raise_interrupt() -> None:
  """An argument for `held`, around code that handles KeyboardInterrupt itself and does not run JAX."""
  raise KeyboardInterrupt
