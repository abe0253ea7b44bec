"""A folder of files that grow while training runs, which may be in a bucket."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from shufflenet_jax.storage import client, errors, paths, temporary
from shufflenet_jax.storage.appended import AppendedObject

SYNC_SECONDS = 30
MIN_SYNC_SECONDS = 1.1  # the service accepts one write per second to an object


class LogFolder(contextlib.AbstractContextManager):
  """A local folder whose files are copied to `path`, if that is in a bucket. The end of the context waits for this.

  A background thread uploads new bytes every half minute, and soon after `sync_soon`. Failures do not disturb the
  caller: bytes that could not be written are tried again at the next turn.

  Attributes:
    folder: where to write files. They may grow, or be replaced as a whole.
  """

  def __init__(self, path: str):
    """Starts copying if `path`, a normalized path, is remote."""
    self._path = path
    self._remote = paths.is_remote(path)
    if not self._remote:
      self.folder = path
      return
    self._stack = contextlib.ExitStack()
    self.folder = self._stack.enter_context(temporary.folder())
    self._files: dict[str, MirroredFile] = {}
    self._wake, self._ending = threading.Event(), False
    self._failing_since: float | None = None
    self._thread = threading.Thread(target=self._work, daemon=True, name="logs")
    self._thread.start()

  @contextlib.contextmanager
  def writing(self) -> Iterator[None]:
    """A context for writing to the files of `folder`.

    Raises:
      Unavailable, Refused: something could not be written.
    """
    named = temporary.name_if_full(self.folder) if self._remote else contextlib.nullcontext()
    with errors.translate_errors(self.folder, "written"), named:
      yield

  def sync_soon(self) -> None:
    """Asks the background thread to upload new bytes now, instead of at the end of the half minute."""
    if self._remote:
      self._wake.set()

  def close(self, patience: float | None = None) -> None:
    """Waits until everything is in `path`.

    Args:
      patience: how long to try, s; None for `client.PATIENCE_SECONDS`.

    Raises:
      Unavailable, Refused: something could not be written.
    """
    if not self._remote or self._ending:
      return
    self._ending = True
    self._wake.set()
    self._thread.join()
    deadline = time.monotonic() + (client.PATIENCE_SECONDS if patience is None else patience)
    try:
      while True:
        try:
          return self.sync()
        except Exception as error:
          if not isinstance(error, errors.Unavailable) or time.monotonic() > deadline:
            kind = type(error) if isinstance(error, errors.StorageError) else errors.Unavailable
            raise kind(f"the last lines of the logs are lost: {error}") from error
        time.sleep(2)
    finally:
      for file in self._files.values():
        file.close()
      self._stack.close()

  def __exit__(self, kind, *exception):
    if kind is None:
      self.close()
    else:
      # The exception that ended the context is the one to report, without delay.
      with contextlib.suppress(errors.StorageError):
        self.close(patience=0)

  def _work(self) -> None:
    while not self._ending:
      self._wake.wait(SYNC_SECONDS)
      self._wake.clear()
      try:
        self.sync()
      except Exception as error:  # of any kind: the next turn may succeed
        self._note_failure(error)
      else:
        self._note_success()
      time.sleep(MIN_SYNC_SECONDS)

  def _note_failure(self, error: Exception) -> None:
    if self._failing_since is None:
      self._failing_since = time.monotonic()
      print(
        f"note: {error}; training continues, and the lines are kept on this machine until they can be written",
        file=sys.stderr,
      )

  def _note_success(self) -> None:
    if self._failing_since is not None:
      seconds = time.monotonic() - self._failing_since
      print(f"note: the logs are written to {self._path} again, after {seconds:.0f} s", file=sys.stderr)
      self._failing_since = None

  def sync(self) -> None:
    """Uploads everything that is new in the folder. For the background thread; `sync_soon` is for callers.

    Raises:
      Unavailable, Refused: something could not be written.
    """
    with os.scandir(self.folder) as entries:
      names = sorted(e.name for e in entries if e.is_file() and not e.name.endswith(".partial"))
    for name in names:
      if name not in self._files:
        tail = paths.join(self._path, f".append.{len(self._files)}")
        self._files[name] = MirroredFile(os.path.join(self.folder, name), paths.join(self._path, name), tail)
      self._files[name].upload_new()


class MirroredFile:
  """A local file and its copy in a bucket."""

  def __init__(self, local: str, path: str, tail: str):
    """Uploads nothing yet.

    Args:
      local: path of the file.
      path: of its copy.
      tail: of an object that holds new bytes for a moment; see `AppendedObject`.
    """
    self._local, self._path = local, path
    self._object = AppendedObject(path, tail)
    # The file stays open: otherwise a file that replaces it might get the same inode number, and not be noticed.
    self._file, self._size = None, 0

  def upload_new(self) -> None:
    """Appends new bytes to the copy if the file grew; writes the copy again if the file was replaced."""
    with errors.translate_errors(self._local):
      status = os.stat(self._local)
      is_new = self._file is None or os.fstat(self._file.fileno()).st_ino != status.st_ino
      if is_new:
        self.close()
        self._file, self._size = open(self._local, "rb"), None  # noqa: SIM115  closed by `close`
    if self._size == status.st_size:
      return
    with errors.translate_errors(self._path, "written"):
      grew = self._size is not None and status.st_size > self._size
      if not (grew and self._object.append(self._read(self._size, status.st_size))):
        self._object.write(self._read(0, status.st_size))
    self._size = status.st_size

  def _read(self, begin: int, end: int) -> bytes:
    self._file.seek(begin)
    return self._file.read(end - begin)

  def close(self) -> None:
    """Closes the local file."""
    if self._file is not None:
      self._file.close()
      self._file = None
