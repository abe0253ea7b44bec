"""The local file system. `shufflenet_jax.storage` documents these functions; errors are the system's own."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO

from shufflenet_jax.storage.errors import Locked

PARTIAL = ".partial"
REMOVED = ".removed"
_COPY_BYTES = 4 << 20  # read and written at once


def _partial(path: str) -> str:
  """A temporary name in the same folder. It is random, because several processes may write the same path."""
  return f"{path}.{uuid.uuid4().hex[:8]}{PARTIAL}"


def read_bytes(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()


def read_head(path: str, count: int) -> bytes:
  with open(path, "rb") as file:
    return file.read(count)


def write_bytes(path: str, content: bytes) -> None:
  with new_file(path) as partial, open(partial, "wb") as file:
    file.write(content)


def _status(path: str) -> os.stat_result | None:
  """None if the path does not exist, or if one of the folders above it is a file."""
  try:
    return os.stat(path)
  except (FileNotFoundError, NotADirectoryError):
    return None


def is_file(path: str) -> bool:
  status = _status(path)
  return status is not None and not _is_folder(status)


def is_folder(path: str) -> bool:
  status = _status(path)
  return status is not None and _is_folder(status)


def _is_folder(status: os.stat_result) -> bool:
  return (status.st_mode & 0o170000) == 0o040000


def list_folder(folder: str) -> list[tuple[str, bool]]:
  with os.scandir(folder) as entries:
    kinds = [(entry.name, _is_true(entry.is_file), _is_true(entry.is_dir)) for entry in entries]
  return sorted((name, is_dir) for name, is_file, is_dir in kinds if is_file or is_dir)


def _is_true(question: Callable[[], bool]) -> bool:
  try:
    return question()
  except OSError as error:
    if error.errno == errno.ELOOP:  # a link to itself
      return False
    raise


def walk(folder: str, skipped: dict[str, str], hidden: bool) -> Iterator[tuple[str, int]]:
  pending = [(folder, "", _identities_above(folder))]
  while pending:
    parent, inside, above = pending.pop()
    try:
      with os.scandir(parent) as entries:
        in_order = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
      if not inside:
        raise
      continue  # it was removed after its parent was listed
    folders = []
    for entry in in_order:
      path = inside + entry.name
      if not hidden and entry.name.startswith("."):
        continue
      try:
        status = entry.stat()
      except OSError as error:
        if not entry.is_symlink() or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
          raise
        skipped[path] = "a broken link"
        continue
      if stat.S_ISREG(status.st_mode):
        yield path, status.st_size
      elif not stat.S_ISDIR(status.st_mode):
        skipped[path] = "not a regular file"
      elif (status.st_dev, status.st_ino) in above:
        skipped[path] = "a link to a folder above it"
      else:
        folders.append((entry.path, f"{path}/", above | {(status.st_dev, status.st_ino)}))
    pending += reversed(folders)


def versions(folder: str) -> Iterator[tuple[str, int, str]]:
  for name, size in walk(folder, {}, hidden=True):
    yield name, size, str(os.stat(os.path.join(folder, name)).st_mtime_ns)


def copy_into(path: str, file: BinaryIO, size: int, version: str) -> None:
  del size, version  # the caller compares the sizes
  with open(path, "rb") as source:
    file.seek(0)
    file.truncate()
    shutil.copyfileobj(source, file, _COPY_BYTES)


def _identities_above(folder: str) -> frozenset[tuple[int, int]]:
  """(device, inode) of a folder and of all folders above it, to recognize links to them."""
  found, path = set(), os.path.realpath(folder)
  while True:
    status = os.stat(path)
    found.add((status.st_dev, status.st_ino))
    if path == os.path.dirname(path):
      return frozenset(found)
    path = os.path.dirname(path)


def make_folder(folder: str) -> None:
  os.makedirs(folder, exist_ok=True)


def check_writable(folder: str, size: int) -> None:
  os.makedirs(folder, exist_ok=True)
  probe = os.path.join(folder, ".write_test")
  try:
    with open(probe, "wb") as file:
      file.write(b"x" * size)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(probe)


def remove_file(path: str) -> None:
  with contextlib.suppress(FileNotFoundError):
    os.remove(path)


def remove_folder(folder: str, marker: str) -> None:
  """Renames a folder that has a marker before removing it: a half-removed one would be mistaken for a damaged one."""
  with contextlib.suppress(FileNotFoundError):
    if marker:
      os.rename(folder, folder := f"{folder}.{uuid.uuid4().hex[:8]}{REMOVED}")
    shutil.rmtree(folder)


def move_folder(folder: str, to: str, marker: str) -> None:
  os.makedirs(os.path.dirname(to), exist_ok=True)
  os.rename(folder, to)


@contextlib.contextmanager
def new_folder(folder: str, marker: str) -> Iterator[str]:
  partial = _partial(folder)
  os.makedirs(partial)
  inside = os.path.join(partial, os.path.basename(folder))
  try:
    yield inside
    os.rename(inside, folder)
    os.rmdir(partial)
  except BaseException:
    for _ in range(10):  # threads of the failed block may continue to write for a moment
      shutil.rmtree(partial, ignore_errors=True)
      time.sleep(0.1)
      if not os.path.exists(partial):
        break
    raise


@contextlib.contextmanager
def new_file(path: str) -> Iterator[str]:
  os.makedirs(os.path.dirname(path), exist_ok=True)
  partial = _partial(path)
  try:
    yield partial
    with open(partial, "rb") as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(partial)
    raise


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    os.close(descriptor)
    raise Locked(f"another process is writing to {folder}; wait for it, or end it") from None
  except OSError:
    pass  # a file system without locks
  try:
    yield
  finally:
    os.close(descriptor)


def free_bytes(folder: str) -> float:
  return shutil.disk_usage(folder).free


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
  os.stat(folder)
  yield folder
