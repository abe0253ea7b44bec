"""Files that grow while training runs, in a folder that may be in a bucket."""

import contextlib
import os
import sys
import threading
import time

from shufflenet_jax.storage import bucket, paths, temporary, trouble
from shufflenet_jax.storage.appended import AppendedObject

EVERY_SECONDS = 30
LEAST_SECONDS = 1.1  # the service takes one write of an object a second


class LogFolder(contextlib.AbstractContextManager):
  """A local folder whose files are, or come to be, those of `path`; the end of the context waits for that.

  In a bucket, a background thread carries over what is new: every half minute, and soon after `sync_soon`. Failures
  do not stop the caller: what could not be written is tried again at the next turn.

  Attributes:
    folder: where to write files: they may grow, or be replaced as a whole.
  """

  def __init__(self, path: str):
    """`path`: normalized, local or remote."""
    self._path = path
    self._remote = paths.is_remote(path)
    if not self._remote:
      self.folder = path
      return
    self._stack = contextlib.ExitStack()
    self.folder = self._stack.enter_context(temporary.folder())
    self._sent: dict[str, _Sent] = {}
    self._wake, self._ending = threading.Event(), False
    self._failing_since: float | None = None
    self._thread = threading.Thread(target=self._work, daemon=True)
    self._thread.start()

  def sync_soon(self) -> None:
    """Has what was written so far carried over without waiting for the next half minute."""
    if self._remote:
      self._wake.set()

  def close(self, patience: float | None = None) -> None:
    """Waits until everything is in `path`, trying for up to `patience` seconds (`bucket.PATIENCE_SECONDS`).

    Raises:
      Unavailable, Refused: something could not be written.
    """
    if not self._remote or self._ending:
      return
    self._ending = True
    self._wake.set()
    self._thread.join()
    deadline = time.monotonic() + (bucket.PATIENCE_SECONDS if patience is None else patience)
    try:
      while True:
        try:
          return self._sync()
        except trouble.StorageError as error:
          if not isinstance(error, trouble.Unavailable) or time.monotonic() > deadline:
            raise type(error)(f"the last lines of the logs are lost: {error}") from error
        time.sleep(2)
    finally:
      for sent in self._sent.values():
        sent.close()
      self._stack.close()

  def __exit__(self, kind, *exception):
    if kind is None:
      self.close()
    else:
      with contextlib.suppress(trouble.StorageError):  # the first error is the one to report, soon
        self.close(patience=0)

  def _work(self) -> None:
    while not self._ending:
      self._wake.wait(EVERY_SECONDS)
      self._wake.clear()
      try:
        self._sync()
      except Exception as error:  # whatever it is, the next turn may go well
        self._tell_failing(error)
      else:
        self._tell_well()
      time.sleep(LEAST_SECONDS)

  def _tell_failing(self, error: Exception) -> None:
    if self._failing_since is None:
      self._failing_since = time.monotonic()
      print(
        f"note: {error}; training continues, and the lines are kept on this machine until they can be written",
        file=sys.stderr,
      )

  def _tell_well(self) -> None:
    if self._failing_since is not None:
      seconds = time.monotonic() - self._failing_since
      print(f"note: the logs are written again to {self._path}, after {seconds:.0f} s", file=sys.stderr)
      self._failing_since = None

  def _sync(self) -> None:
    with os.scandir(self.folder) as entries:
      files = sorted(e.name for e in entries if e.is_file() and not e.name.endswith(".partial"))
    for file in files:
      if file not in self._sent:
        piece = paths.join(self._path, f".append.{len(self._sent)}")
        self._sent[file] = _Sent(os.path.join(self.folder, file), paths.join(self._path, file), piece)
      self._sent[file].send()


class _Sent:
  """How much of a local file is in the bucket."""

  def __init__(self, local: str, path: str, piece: str):
    self._local, self._path = local, path
    self._object = AppendedObject(path, piece)
    self._file, self._size = None, 0  # held open: a file that replaces it cannot have its inode

  def send(self) -> None:
    """Carries over what is new: a file that grew is appended to, one that was replaced is written anew."""
    with trouble.explained(self._local):
      status = os.stat(self._local)
      is_new = self._file is None or os.fstat(self._file.fileno()).st_ino != status.st_ino
      if is_new:
        self.close()
        self._file, self._size = open(self._local, "rb"), None  # noqa: SIM115  closed by `close`
    if self._size == status.st_size:
      return
    with trouble.explained(self._path, "written"):
      grew = self._size is not None and status.st_size > self._size
      if not (grew and self._object.append(self._read(self._size, status.st_size))):
        self._object.write(self._read(0, status.st_size))
    self._size = status.st_size

  def _read(self, begin: int, end: int) -> bytes:
    self._file.seek(begin)
    return self._file.read(end - begin)

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None
