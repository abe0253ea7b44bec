"""Files and folders, on the local file system or in a Google Cloud Storage bucket, through the same functions.

Only this package knows which paths are remote. Paths are strings as `normalize` returns them.

Whichever library a function uses, a failure of the storage is one of three errors (see `errors.py`); errors about the
content of a file pass unchanged:

  FileNotFoundError  the file or folder does not exist. No other failure is reported this way.
  Refused            exit status 2: no such bucket, no permission, no space. Raised within seconds.
  Unavailable        exit status 1: no answer, too many requests, expired credentials. For a bucket it is raised after
                     `client.PATIENCE_SECONDS` of retrying, during which the user is informed.
"""

import contextlib
import os
import types
from collections.abc import Iterator
from typing import BinaryIO

from shufflenet_jax.storage import bucket, globbing, local, paths
from shufflenet_jax.storage.errors import (
  Locked,
  Outage,
  Refused,
  StorageError,
  Unavailable,
  translate_error,
  translate_errors,
)
from shufflenet_jax.storage.log_folder import LogFolder
from shufflenet_jax.storage.paths import join, name, normalize, parent
from shufflenet_jax.storage.slow_reads import report_slow_read, report_slow_reads

__all__ = [
  "Locked", "LogFolder", "Outage", "Refused", "StorageError", "Unavailable", "can_rename", "check_writable",
  "copy_into", "diagnose_read_error", "free_bytes", "glob", "is_file", "is_folder", "join", "list_folder",
  "local_copy", "locked", "make_folder", "move_folder", "name", "new_file", "new_folder", "normalize", "parent",
  "read_bytes", "read_head", "read_text", "remove_file", "remove_folder", "report_slow_read", "report_slow_reads",
  "seeks_cheaply", "translate_error", "translate_errors", "versions", "walk", "write_bytes", "write_text",
]  # fmt: skip


def _backend(path: str) -> types.ModuleType:
  return bucket if paths.is_remote(path) else local


def read_bytes(path: str) -> bytes:
  """The content of a file."""
  with translate_errors(path):
    return _backend(path).read_bytes(path)


def read_head(path: str, count: int) -> bytes:
  """The first `count` bytes of a file, or all of a shorter one."""
  with translate_errors(path):
    return _backend(path).read_head(path, count)


def read_text(path: str) -> str:
  """The content of a file of UTF-8 text."""
  return read_bytes(path).decode()


def write_bytes(path: str, content: bytes) -> None:
  """Writes a file, whole or not at all, and makes the folders above it."""
  with translate_errors(path, "written"):
    _backend(path).write_bytes(path, content)


def write_text(path: str, content: str) -> None:
  """`write_bytes` of UTF-8 text."""
  write_bytes(path, content.encode())


def is_file(path: str) -> bool:
  """Whether there is a file. Unlike `os.path.isfile`, it raises an error if that cannot be determined."""
  with translate_errors(path):
    return _backend(path).is_file(path)


def is_folder(path: str) -> bool:
  """Whether there is a folder; in a bucket, whether any object is in it."""
  with translate_errors(path):
    return _backend(path).is_folder(path)


def list_folder(folder: str, missing_ok: bool = False) -> list[tuple[str, bool]]:
  """(name, whether it is a folder) of the files and folders in a folder, sorted.

  Entries that are neither, such as pipes and broken links, are left out. With `missing_ok`, an absent folder has no
  entries.
  """
  ignored = contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext()
  with ignored, translate_errors(folder, "listed"):
    return _backend(folder).list_folder(folder)
  return []


def walk(folder: str, skipped: dict[str, str] | None = None, hidden: bool = True) -> Iterator[tuple[str, int]]:
  """(relative path, size in bytes) of all files in a folder and below, sorted within each folder.

  Links to folders are followed, except links to a folder above.

  Args:
    folder: where to begin.
    skipped: is filled with the relative path of every entry that is neither a file nor a folder, and what it is, for
      messages.
    hidden: whether to include files and folders whose names begin with a dot.
  """
  with translate_errors(folder, "listed"):
    yield from _backend(folder).walk(folder, {} if skipped is None else skipped, hidden)


def versions(folder: str) -> Iterator[tuple[str, int, str]]:
  """(relative path, size in bytes, version) of all files in a folder and below.

  A file that was written anew has another version: in a bucket its generation, locally its time of modification.
  """
  with translate_errors(folder, "listed"):
    yield from _backend(folder).versions(folder)


def copy_into(path: str, file: BinaryIO, size: int, version: str) -> None:
  """Writes the content of a file into an open file, which is emptied first. In a bucket, its checksum is compared.

  Args:
    path: of the file to read.
    file: open for writing; it needs `write`, `seek` and `truncate`.
    size: of the file to read, bytes. Objects of up to 256 MB are held in memory.
    version: as `versions` returns it. In a bucket, another version of the object is never read.

  Raises:
    FileNotFoundError: there is no such file, or no longer this version.
  """
  with translate_errors(path):
    _backend(path).copy_into(path, file, size, version)


def glob(pattern: str) -> list[str]:
  """The files that a pattern matches, sorted; see `globbing.expand`."""
  return sorted(globbing.expand(pattern, list_folder, walk))


def make_folder(folder: str) -> None:
  """Makes a folder and those above it, unless they exist; in a bucket, only checks that the bucket exists."""
  with translate_errors(folder, "written"):
    _backend(folder).make_folder(folder)


def check_writable(folder: str, size: int) -> None:
  """Makes a folder, and writes and removes a file of `size` bytes in it; in a bucket, an empty object."""
  with translate_errors(folder, "written"):
    _backend(folder).check_writable(folder, size)


def remove_file(path: str) -> None:
  """Removes a file, if it exists."""
  with translate_errors(path, "removed"):
    _backend(path).remove_file(path)


def remove_folder(folder: str, marker: str = "") -> None:
  """Removes a folder and everything in it, if it exists. If a marker is given, removes it first (see `new_folder`)."""
  with translate_errors(folder, "removed"):
    _backend(folder).remove_folder(folder, marker)


def move_folder(folder: str, to: str, marker: str = "") -> None:
  """Moves a folder to a path that does not exist.

  In a bucket each file is copied and removed: the marker is copied last and removed first (see `new_folder`).
  """
  with translate_errors(folder, "moved"):
    _backend(folder).move_folder(folder, to, marker)


@contextlib.contextmanager
def new_folder(folder: str, marker: str) -> Iterator[str]:
  """Yields the path of a local folder for the block to make, which is moved to `folder` at the end of the block.

  Args:
    folder: a path that does not exist yet.
    marker: the file whose presence shows that the folder is complete. Buckets cannot rename, so there it is written
      last.
  """
  with translate_errors(folder, "written"), _backend(folder).new_folder(folder, marker) as inside:
    yield inside


@contextlib.contextmanager
def new_file(path: str) -> Iterator[str]:
  """Yields the path of a local file for the block to write, which is moved to `path` at the end of the block."""
  with translate_errors(path, "written"), _backend(path).new_file(path) as inside:
    yield inside


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  """Holds a lock on a folder, against other processes of this machine. Buckets have no locks: there it does nothing.

  Raises:
    Locked: another process holds the lock.
    Refused, Unavailable: the folder cannot be opened.
  """
  with contextlib.ExitStack() as stack:
    with translate_errors(folder, "locked"):
      stack.enter_context(_backend(folder).locked(folder))
    yield


def free_bytes(folder: str) -> float:
  """Free space at a folder, bytes; infinity in a bucket."""
  with translate_errors(folder):
    return _backend(folder).free_bytes(folder)


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
  """Yields a local folder with the content of `folder`: itself, or a copy that is removed at the end of the block."""
  with contextlib.ExitStack() as stack:
    with translate_errors(folder):
      inside = stack.enter_context(_backend(folder).local_copy(folder))
    yield inside


def diagnose_read_error(error: BaseException, folder: str) -> BaseException:
  """`translate_error`, for an exception that TensorFlow raised about files in a folder.

  TensorFlow uses one class for an expired token and for a missing permission. For a bucket, this package's own client
  therefore reads from the folder before either is reported.
  """
  translated = translate_error(error, folder)
  if not paths.is_remote(folder) or not isinstance(translated, FileNotFoundError | Refused):
    return translated
  try:
    bucket.check_readable(folder)
  except Exception as own:  # the client's own exceptions
    return translate_error(own, folder)
  if isinstance(translated, Refused):
    return Unavailable(
      f"{folder} could not be read a moment ago ({type(error).__name__}), but can now; run the same command again"
    )
  return translated


def can_rename(path: str) -> bool:
  """Whether a new folder has its final name only once it is complete. Buckets cannot rename."""
  return not paths.is_remote(path)


def seeks_cheaply(path: str) -> bool:
  """Whether reading scattered parts of a large file is about as fast as reading it in order."""
  return not paths.is_remote(path)


def _configure_tensorflow() -> None:
  """Configures TensorFlow's own client for buckets, which reads datasets. To be called before TensorFlow is imported.

  It fetches 8 MB at a time, where its default is 64 MB for each file that it opens, and retries for about
  `client.PATIENCE_SECONDS`.
  """
  os.environ.setdefault("GCS_READAHEAD_BUFFER_SIZE_BYTES", str(8 << 20))
  os.environ.setdefault("GCS_RETRY_CONFIG_MAX_RETRIES", "8")  # after 1, 2, 4, 8, 16, 32, 32 and 32 seconds


_configure_tensorflow()
