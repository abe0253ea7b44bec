"""Files and folders, on the local file system or in a Google Cloud Storage bucket: one rule for both.

The only package that knows which paths are remote; no other asks. Paths are strings as `normalize` returns them.

Every function raises one of three errors, and nothing else, whatever library is beneath (see `trouble.py`):

  FileNotFoundError  the file or folder is not there; no other failure is ever taken for that.
  Refused            exit status 2: no such bucket, no permission, no space. Told within seconds.
  Unavailable        exit status 1: no answer, too many requests, expired credentials. From a bucket it comes after
                     `bucket.PATIENCE_SECONDS` of trying, and the user is told of the waiting meanwhile.
"""

import contextlib
import os
import types
from collections.abc import Iterator

from shufflenet_jax.storage import bucket, globbing, local, paths
from shufflenet_jax.storage.logs import LogFolder
from shufflenet_jax.storage.paths import join, name, normalize, parent
from shufflenet_jax.storage.trouble import Locked, Refused, StorageError, Unavailable, explain, explained
from shufflenet_jax.storage.waiting import patiently, waiting

__all__ = [
  "Locked", "LogFolder", "Refused", "StorageError", "Unavailable", "check_writable", "explain", "explained",
  "free_bytes", "glob", "is_file", "is_folder", "join", "judge", "list_folder", "local_copy", "locked", "make_folder",
  "move_folder", "name", "new_file", "new_folder", "normalize", "parent", "patiently", "read_bytes", "read_head",
  "read_text", "remove_file", "remove_folder", "renames", "seeks_cheaply", "waiting", "walk", "write_bytes",
  "write_text",
]  # fmt: skip


def _of(path: str) -> types.ModuleType:
  return bucket if paths.is_remote(path) else local


def read_bytes(path: str) -> bytes:
  """A whole file."""
  with explained(path):
    return _of(path).read_bytes(path)


def read_head(path: str, count: int) -> bytes:
  """The first bytes of a file: `count`, or as many as there are."""
  with explained(path):
    return _of(path).read_head(path, count)


def read_text(path: str) -> str:
  """A whole file of UTF-8 text."""
  return read_bytes(path).decode()


def write_bytes(path: str, content: bytes) -> None:
  """Writes a file whole or not at all, and the folders above it."""
  with explained(path, "written"):
    _of(path).write_bytes(path, content)


def write_text(path: str, content: str) -> None:
  """`write_bytes` of UTF-8 text."""
  write_bytes(path, content.encode())


def is_file(path: str) -> bool:
  """Whether there is a file. Unlike `os.path.isfile`, it raises where that cannot be told."""
  with explained(path):
    return _of(path).is_file(path)


def is_folder(path: str) -> bool:
  """Whether there is a folder; in a bucket, whether it holds anything."""
  with explained(path):
    return _of(path).is_folder(path)


def list_folder(folder: str, missing_ok: bool = False) -> list[tuple[str, bool]]:
  """(name, whether it is a folder) of what is in a folder, sorted; with `missing_ok`, nothing where there is none."""
  with contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext(), explained(folder, "listed"):
    return _of(folder).list_folder(folder)
  return []


def walk(folder: str, odd: dict[str, str] | None = None) -> Iterator[tuple[str, int]]:
  """(path from `folder` on, size in bytes) of all files in a folder and below, sorted within a folder.

  Links to folders are followed, but for those that lead back to a folder above.

  Args:
    folder: where to begin.
    odd: gets the path from `folder` on of each entry that is neither file nor folder, and what it is, for messages.
  """
  with explained(folder, "listed"):
    yield from _of(folder).walk(folder, {} if odd is None else odd)


def glob(pattern: str) -> list[str]:
  """The files that a pattern matches, sorted; see `globbing.expand`."""
  return sorted(globbing.expand(pattern, list_folder, walk))


def make_folder(folder: str) -> None:
  """Makes a folder, and those above it, unless it is there; in a bucket, sees that there is the bucket."""
  with explained(folder, "written"):
    _of(folder).make_folder(folder)


def check_writable(folder: str, size: int) -> None:
  """Makes a folder, and writes and removes a file of `size` bytes there (in a bucket, one without any)."""
  with explained(folder, "written"):
    _of(folder).check_writable(folder, size)


def remove_file(path: str) -> None:
  """Removes a file, if it is there."""
  with explained(path, "removed"):
    _of(path).remove_file(path)


def remove_folder(folder: str, marker: str = "") -> None:
  """Removes a folder with all that it holds, if it is there; the marker, if named, first (see `new_folder`)."""
  with explained(folder, "removed"):
    _of(folder).remove_folder(folder, marker)


def move_folder(folder: str, to: str, marker: str = "") -> None:
  """Moves a folder to a path where nothing is.

  In a bucket that is a copy and a removal of each file. The marker is the last to be copied and the first to be
  removed (see `new_folder`).
  """
  with explained(folder, "moved"):
    _of(folder).move_folder(folder, to, marker)


@contextlib.contextmanager
def new_folder(folder: str, marker: str) -> Iterator[str]:
  """Yields the path of a local folder to make; when the block ends, it is at `folder`.

  Args:
    folder: where nothing is yet.
    marker: the file in it whose presence shows that the folder is whole: in a bucket, where nothing can be renamed, it
      is written last.
  """
  with explained(folder, "written"), _of(folder).new_folder(folder, marker) as inside:
    yield inside


@contextlib.contextmanager
def new_file(path: str) -> Iterator[str]:
  """Yields the path of a local file to write; when the block ends, it is at `path`, whole."""
  with explained(path, "written"), _of(path).new_file(path) as inside:
    yield inside


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  """Keeps other processes of this machine that ask for the same out of a folder. Buckets have no locks.

  Raises:
    Locked: another process has it.
    Refused, Unavailable: it cannot be opened.
  """
  with contextlib.ExitStack() as stack:
    with explained(folder, "locked"):
      stack.enter_context(_of(folder).locked(folder))
    yield


def free_bytes(folder: str) -> float:
  """How much may still be written there; infinity in a bucket."""
  with explained(folder):
    return _of(folder).free_bytes(folder)


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
  """Yields a local folder that holds what `folder` does: itself, or a copy for as long as the block lasts."""
  with contextlib.ExitStack() as stack:
    with explained(folder):
      inside = stack.enter_context(_of(folder).local_copy(folder))
    yield inside


def judge(error: BaseException, folder: str) -> BaseException:
  """`explain`, for what another library raised about files in a folder.

  TensorFlow has one class for a token that expired and for a missing permission, so this package's own client is
  asked about the folder before either is reported.
  """
  explained_as = explain(error, folder)
  if not paths.is_remote(folder) or not isinstance(explained_as, FileNotFoundError | Refused):
    return explained_as
  try:
    bucket.check_readable(folder)
  except Exception as own:  # whatever the client raises
    return explain(own, folder)
  if isinstance(explained_as, Refused):
    return Unavailable(f"{folder} could not be read ({type(error).__name__}), and now can; run the same command again")
  return explained_as


def renames(path: str) -> bool:
  """Whether what is being written has another name until it is whole: a bucket has no rename."""
  return not paths.is_remote(path)


def seeks_cheaply(path: str) -> bool:
  """Whether reading a little here and a little there in a large file costs no more than reading on."""
  return not paths.is_remote(path)


def _configure_tensorflow() -> None:
  """Before TensorFlow is imported: it reads datasets in buckets, by a client of its own.

  That would fetch 64 MB for each file that it opens; and its patience with a bucket that does not answer becomes about
  `bucket.PATIENCE_SECONDS`.
  """
  os.environ.setdefault("GCS_READAHEAD_BUFFER_SIZE_BYTES", str(8 << 20))
  os.environ.setdefault("GCS_RETRY_CONFIG_MAX_RETRIES", "8")  # after 1, 2, 4, 8, 16, 32, 32 and 32 seconds


_configure_tensorflow()
