"""Files and folders in a Google Cloud Storage bucket. `shufflenet_jax.storage` documents these functions.

A folder is a common prefix of object names that ends in `/`. Errors are raised as the client raises them.
"""

import contextlib
import errno
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import BinaryIO

from shufflenet_jax.storage import client, local, temporary

THREADS = 8
_BINARY = "application/octet-stream"
AT_ONCE_BYTES = 256 << 20  # read in one piece; in the client's pieces of 8 KB it takes almost twice the processor time


def _options(path: str) -> dict:
  """The arguments of a single request about a path."""
  return {"retry": client.retry(path), "timeout": client.TIMEOUT}


def read_bytes(path: str) -> bytes:
  with client.missing_bucket_reported(path):
    blob = client.blob(path)
    return client.download(lambda: blob.download_as_bytes(checksum="crc32c", **_options(path)))


def read_head(path: str, count: int) -> bytes:
  from google.api_core.exceptions import RequestRangeNotSatisfiable

  with client.missing_bucket_reported(path), contextlib.suppress(RequestRangeNotSatisfiable):
    blob = client.blob(path)
    return client.download(lambda: blob.download_as_bytes(start=0, end=count - 1, **_options(path)))
  return b""  # an empty object has no first byte


def write_bytes(path: str, content: bytes) -> None:
  with client.missing_bucket_reported(path):
    client.blob(path).upload_from_string(content, _BINARY, checksum="crc32c", **_options(path))


def is_file(path: str) -> bool:
  exists = client.object_name(path) != "" and client.blob(path).exists(**_options(path))
  if not exists:
    client.check_bucket(client.bucket_name(path))
  return exists


def is_folder(path: str) -> bool:
  with client.missing_bucket_reported(path):
    return any(True for _ in client.list_objects(path, max_results=1)) or client.object_name(path) == ""


def list_folder(folder: str) -> list[tuple[str, bool]]:
  prefix = client.prefix(folder)
  with client.missing_bucket_reported(folder):
    listing = client.list_objects(folder, delimiter="/")
    files = [(blob.name.removeprefix(prefix), False) for blob in listing]
  folders = [(name.removeprefix(prefix).rstrip("/"), True) for name in listing.prefixes]
  if not files and not folders and prefix:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
  # Google's web console represents a folder by an object of the folder's name; without the prefix, that is "".
  return sorted(entry for entry in files + folders if entry[0])


def walk(folder: str, skipped: dict[str, str] | None = None, hidden: bool = True) -> Iterator[tuple[str, int]]:
  del skipped  # a bucket has only files
  for name, size, _ in versions(folder):
    if hidden or not any(part.startswith(".") for part in name.split("/")):
      yield name, size


def versions(folder: str) -> Iterator[tuple[str, int, str]]:
  prefix, is_empty = client.prefix(folder), True
  with client.missing_bucket_reported(folder):
    for blob in client.list_objects(folder):
      is_empty = False
      name = blob.name.removeprefix(prefix)
      if not name.endswith("/"):
        yield name, blob.size, str(blob.generation)
  if is_empty and prefix:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)


def copy_into(path: str, file: BinaryIO, size: int, version: str) -> None:
  _download(client.blob(path, int(version)), path, file, at_once=size <= AT_ONCE_BYTES)


def _download(blob, path: str, file: BinaryIO, at_once: bool = False) -> None:
  def attempt():
    file.seek(0)
    file.truncate()
    blob.download_to_file(file, checksum="crc32c", single_shot_download=at_once, **_options(path))

  with client.missing_bucket_reported(path):
    client.download(attempt)


def check_readable(folder: str) -> None:
  """Reads one byte of the first file in a folder or below."""
  if first := next(walk(folder), None):
    read_head(f"{folder}/{first[0]}", 1)


def make_folder(folder: str) -> None:
  client.blob(folder)  # a folder needs no object of its own, but its bucket has to exist


def check_writable(folder: str, size: int) -> None:
  del size  # buckets have no size limit
  probe = f"{folder}/.write_test"
  write_bytes(probe, b"")
  remove_file(probe)


def remove_file(path: str) -> None:
  from google.api_core.exceptions import NotFound

  with contextlib.suppress(NotFound):
    client.blob(path).delete(**_options(path))


def remove_folder(folder: str, marker: str) -> None:
  with contextlib.suppress(FileNotFoundError):
    _remove(folder, [name for name, _ in walk(folder)], marker)


def _remove(folder: str, names: list[str], marker: str) -> None:
  if marker in names:
    remove_file(f"{folder}/{marker}")
  _for_each(lambda name: remove_file(f"{folder}/{name}"), [name for name in names if name != marker])


def move_folder(folder: str, to: str, marker: str) -> None:
  names = [name for name, _ in walk(folder)]
  others = [name for name in names if name != marker]
  _for_each(lambda name: _copy(f"{folder}/{name}", f"{to}/{name}"), others)
  if marker in names:
    _copy(f"{folder}/{marker}", f"{to}/{marker}")
  _remove(folder, names, marker)


def _copy(path: str, to: str) -> None:
  source, target, token = client.blob(path), client.blob(to), None
  while True:
    token, _, _ = target.rewrite(source, token=token, **_options(path))
    if token is None:
      return


@contextlib.contextmanager
def new_folder(folder: str, marker: str) -> Iterator[str]:
  with temporary.folder() as above:
    inside = os.path.join(above, "folder")
    yield inside
    others = [name for name, _ in local.walk(inside, {}, hidden=True) if name != marker]
    _for_each(lambda name: _upload(os.path.join(inside, name), f"{folder}/{name}"), others)
    _upload(os.path.join(inside, marker), f"{folder}/{marker}")


def _upload(file: str, path: str) -> None:
  with client.missing_bucket_reported(path):
    client.blob(path).upload_from_filename(file, _BINARY, checksum="crc32c", **_options(path))


@contextlib.contextmanager
def new_file(path: str) -> Iterator[str]:
  with temporary.folder() as above:
    inside = os.path.join(above, "file")
    yield inside
    _upload(inside, path)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  yield


def free_bytes(folder: str) -> float:
  return math.inf


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
  with temporary.folder() as above:
    inside = os.path.join(above, "folder")

    def download(name):
      target = os.path.join(inside, name)
      os.makedirs(os.path.dirname(target), exist_ok=True)
      path = f"{folder}/{name}"
      with open(target, "wb") as file:
        _download(client.blob(path), path, file)

    _for_each(download, [name for name, _ in walk(folder)])
    yield inside


def _for_each(work: Callable[[str], None], names: Iterable[str]) -> None:
  """Calls `work` for each name, in threads. After a failure no further call begins, and the first error is raised."""
  failed = threading.Event()

  def unless_failed(name):
    if failed.is_set():  # otherwise each remaining name would be retried as long as the first
      return
    try:
      work(name)
    except BaseException:
      failed.set()
      raise

  with futures.ThreadPoolExecutor(THREADS) as pool:
    running = [pool.submit(unless_failed, name) for name in names]
    try:
      for future in futures.as_completed(running):
        future.result()
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise
