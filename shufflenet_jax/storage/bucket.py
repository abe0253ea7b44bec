"""Google Cloud Storage, by its own client. `shufflenet_jax.storage` documents these functions.

Each request is repeated while its failure is a passing one, for up to `PATIENCE_SECONDS`; then the error is as the
client raises it. A folder is what object names have in common up to a `/`.
"""

import contextlib
import errno
import functools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures

from shufflenet_jax.storage import local, temporary, trouble

PATIENCE_SECONDS = 120  # of answers like 503 or 429, and of no answers
EXPIRED_PATIENCE_SECONDS = 15  # of credentials that worked before: new ones come within seconds or not at all
FIRST_WORD_SECONDS = 10  # of trying again, before the user is told of it
WORD_SECONDS = 30  # of waiting, between two words on it
TIMEOUT = (10, 30)  # seconds to connect, and between two parts of an answer
THREADS = 8


@contextlib.contextmanager
def _in_a_bucket(path: str) -> Iterator[None]:
  """Where something is not found within, sees whether that is because the bucket is not there."""
  from google.api_core.exceptions import NotFound

  try:
    yield
  except NotFound:
    _see(_bucket_name(path))
    raise


def read_bytes(path: str) -> bytes:
  with _in_a_bucket(path):
    return _download(lambda: handle(path).download_as_bytes(checksum="crc32c", retry=retry(path), timeout=TIMEOUT))


def _download(whole: Callable):
  """Calls `whole` again after each of two failures that the client does not repeat by itself.

  Bytes that were changed on their way: the client would only read on. And an answer like 404 whose body breaks off.
  """
  import requests
  from google.cloud.storage.exceptions import DataCorruption

  for _ in range(2):
    with contextlib.suppress(DataCorruption, requests.RequestException):
      return whole()
  return whole()


def read_head(path: str, count: int) -> bytes:
  from google.api_core.exceptions import RequestRangeNotSatisfiable

  ask = {"start": 0, "end": count - 1, "retry": retry(path), "timeout": TIMEOUT}
  with _in_a_bucket(path), contextlib.suppress(RequestRangeNotSatisfiable):
    return _download(lambda: handle(path).download_as_bytes(**ask))
  return b""  # an empty object has no first byte


def write_bytes(path: str, content: bytes) -> None:
  with _in_a_bucket(path):
    handle(path).upload_from_string(
      content, "application/octet-stream", checksum="crc32c", retry=retry(path), timeout=TIMEOUT
    )


def is_file(path: str) -> bool:
  there = _name(path) != "" and handle(path).exists(retry=retry(path), timeout=TIMEOUT)
  if not there:
    _see(_bucket_name(path))
  return there


def is_folder(path: str) -> bool:
  with _in_a_bucket(path):
    return any(True for _ in _list(path, max_results=1)) or _name(path) == ""


def list_folder(folder: str) -> list[tuple[str, bool]]:
  prefix = _prefix(folder)
  with _in_a_bucket(folder):
    listing = _list(folder, delimiter="/")
    files = [(blob.name.removeprefix(prefix), False) for blob in listing]
  folders = [(name.removeprefix(prefix).rstrip("/"), True) for name in listing.prefixes]
  if not files and not folders and prefix:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
  return sorted(entry for entry in files + folders if entry[0])  # the folder itself, as the console makes one, is ""


def walk(folder: str, odd: dict[str, str] | None = None, hidden: bool = True) -> Iterator[tuple[str, int]]:
  del odd  # a bucket has only files
  prefix, found = _prefix(folder), False
  with _in_a_bucket(folder):
    for blob in _list(folder):
      found = True
      name = blob.name.removeprefix(prefix)
      if not name.endswith("/") and (hidden or not any(part.startswith(".") for part in name.split("/"))):
        yield name, blob.size
  if not found and prefix:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)


def check_readable(folder: str) -> None:
  """Reads a byte of the first file in a folder or below."""
  if first := next(walk(folder), None):
    read_head(f"{folder}/{first[0]}", 1)


def make_folder(folder: str) -> None:
  handle(folder)  # there is nothing to make, but the bucket has to be there


def check_writable(folder: str, size: int) -> None:
  del size  # a bucket has room
  probe = f"{folder}/.write_test"
  write_bytes(probe, b"")
  remove_file(probe)


def remove_file(path: str) -> None:
  from google.api_core.exceptions import NotFound

  with contextlib.suppress(NotFound):
    handle(path).delete(retry=retry(path), timeout=TIMEOUT)


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
  source, target, token = handle(path), handle(to), None
  while True:
    token, _, _ = target.rewrite(source, token=token, retry=retry(path), timeout=TIMEOUT)
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
  with _in_a_bucket(path):
    handle(path).upload_from_filename(
      file, "application/octet-stream", checksum="crc32c", retry=retry(path), timeout=TIMEOUT
    )


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
      blob = handle(path)
      with _in_a_bucket(path):
        _download(lambda: blob.download_to_filename(target, checksum="crc32c", retry=retry(path), timeout=TIMEOUT))

    _for_each(download, [name for name, _ in walk(folder)])
    yield inside


def _bucket_name(path: str) -> str:
  return path.removeprefix("gs://").partition("/")[0]


def _name(path: str) -> str:
  """The object's name in its bucket."""
  return path.removeprefix("gs://").partition("/")[2]


def _prefix(folder: str) -> str:
  return f"{_name(folder)}/" if _name(folder) else ""


def handle(path: str, generation: int | None = None):
  """The client's handle of an object, in a bucket that has been seen to exist."""
  bucket = _bucket_name(path)
  _check_bucket(bucket)
  return _client().bucket(bucket).blob(_name(path), generation=generation)


def _list(folder: str, **options):
  """The client's iterator over objects; afterwards it has `prefixes`."""
  bucket = _bucket_name(folder)
  _check_bucket(bucket)
  return _client().list_blobs(
    bucket, prefix=_prefix(folder), fields=_FIELDS, retry=retry(folder), timeout=TIMEOUT, **options
  )


_FIELDS = "items(name,size),prefixes,nextPageToken"


@functools.cache
def _client():
  from google.auth.credentials import AnonymousCredentials
  from google.auth.exceptions import DefaultCredentialsError
  from google.cloud.storage import Client

  try:
    return Client(project=None)
  except DefaultCredentialsError:
    return Client(project=None, credentials=AnonymousCredentials())  # enough for a public bucket


@functools.cache
def _check_bucket(bucket: str) -> None:
  """`_see`, once a process."""
  _see(bucket)


def _see(bucket: str) -> None:
  """Asks a bucket for its first object: an object's own 404 does not tell whether it has a bucket.

  Raises:
    Refused: there is no such bucket.
  """
  from google.api_core.exceptions import NotFound

  path = f"gs://{bucket}"
  try:
    for _ in _client().list_blobs(bucket, max_results=1, fields=_FIELDS, retry=retry(path), timeout=TIMEOUT):
      pass
  except NotFound:
    raise trouble.Refused(f"there is no bucket {path}; create it, or correct its name") from None
  trouble.accepted = True


def _for_each(work: Callable[[str], None], names: Iterable[str]) -> None:
  """Calls `work` in some threads; where it fails, the rest is given up and the first error raised."""
  failed = threading.Event()

  def unless_failed(name):
    if failed.is_set():  # or each of those that are left would be tried for as long as the first
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


_told = [0.0]  # when a user was last told of waiting; for all threads
_telling = threading.Lock()


def retry(path: str, patience: float | None = None):
  """How a request is repeated: for up to `patience` seconds, with pauses that grow from half a second to ten."""
  from google.api_core.retry import Retry
  from google.cloud.storage.exceptions import DataCorruption

  began = time.monotonic()
  patience = PATIENCE_SECONDS if patience is None else patience

  def again(error):
    if isinstance(error, DataCorruption):
      return False  # see `_download`
    enough = min(patience, EXPIRED_PATIENCE_SECONDS) if trouble.is_about_credentials(error) else patience
    return trouble.is_passing(error) and time.monotonic() - began < enough

  def tell(error):
    now = time.monotonic()
    with _telling:
      if now - began < FIRST_WORD_SECONDS or now - _told[0] < WORD_SECONDS:
        return
      _told[0] = now
    why = trouble.reason(error)
    print(f"waiting for {path} ({why}), for up to {patience:.0f} s in all", file=sys.stderr, flush=True)

  return Retry(again, initial=0.5, maximum=10, multiplier=2, timeout=patience, on_error=tell)
