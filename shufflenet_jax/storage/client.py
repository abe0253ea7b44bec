"""The client of Google Cloud Storage: its handles, its retries, and whether a bucket exists.

Each request is repeated while its error is transient, for up to `PATIENCE_SECONDS`; then the client's own error is
raised.
"""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator

from shufflenet_jax.storage import errors

PATIENCE_SECONDS = 120  # for answers such as 503 or 429, and for no answer
EXPIRED_PATIENCE_SECONDS = 15  # for credentials that worked before: they are renewed within seconds or not at all
FIRST_NOTICE_SECONDS = 10  # of retrying, before the user is informed
NOTICE_SECONDS = 30  # between two notices that a command is waiting
TIMEOUT = (10, 30)  # seconds to connect, and between two parts of an answer

_FIELDS = "items(name,size,generation),prefixes,nextPageToken"


def bucket_name(path: str) -> str:
  """The bucket of a gs:// path."""
  return path.removeprefix("gs://").partition("/")[0]


def object_name(path: str) -> str:
  """The object's name in its bucket; "" for the bucket itself."""
  return path.removeprefix("gs://").partition("/")[2]


def prefix(folder: str) -> str:
  """What the names of all objects in a folder begin with."""
  return f"{object_name(folder)}/" if object_name(folder) else ""


def blob(path: str, generation: int | None = None):
  """The client's handle of an object, whose bucket is known to exist.

  Raises:
    errors.Refused: there is no such bucket.
  """
  bucket = bucket_name(path)
  check_bucket_once(bucket)
  return _client().bucket(bucket).blob(object_name(path), generation=generation)


def list_objects(folder: str, **options):
  """The client's iterator over the objects in a folder and below; at its end it has `prefixes`.

  Args:
    folder: a gs:// path.
    options: of `Client.list_blobs`.
  """
  bucket = bucket_name(folder)
  check_bucket_once(bucket)
  return _client().list_blobs(
    bucket, prefix=prefix(folder), fields=_FIELDS, retry=retry(folder), timeout=TIMEOUT, **options
  )


@functools.cache
def _client():
  from google.auth.credentials import AnonymousCredentials
  from google.auth.exceptions import DefaultCredentialsError
  from google.cloud.storage import Client

  try:
    return Client(project=None)
  except DefaultCredentialsError:
    return Client(project=None, credentials=AnonymousCredentials())  # enough for a public bucket


def check_bucket(bucket: str) -> None:
  """Checks that a bucket exists, by listing one object: a 404 for an object does not show whether its bucket exists.

  Raises:
    errors.Refused: there is no such bucket.
  """
  from google.api_core.exceptions import NotFound

  path = f"gs://{bucket}"
  try:
    for _ in _client().list_blobs(bucket, max_results=1, fields=_FIELDS, retry=retry(path), timeout=TIMEOUT):
      pass
  except NotFound:
    raise errors.Refused(f"there is no bucket {path}; create it, or correct its name") from None
  errors.credentials_worked = True


@functools.cache
def check_bucket_once(bucket: str) -> None:
  """`check_bucket`, once per process."""
  check_bucket(bucket)


@contextlib.contextmanager
def missing_bucket_reported(path: str) -> Iterator[None]:
  """Raises `errors.Refused` for a 404 inside the block whose cause is that the bucket does not exist."""
  from google.api_core.exceptions import NotFound

  try:
    yield
  except NotFound:
    check_bucket(bucket_name(path))
    raise


def download(attempt: Callable):
  """Calls `attempt`, and up to twice more after failures that the client does not retry correctly.

  There are two such failures: corrupted bytes, because the client's own retry would continue to read instead of
  starting again, and an error answer, such as a 404, whose body is incomplete.
  """
  import requests
  from google.cloud.storage.exceptions import DataCorruption

  for _ in range(2):
    with contextlib.suppress(DataCorruption, requests.RequestException):
      return attempt()
  return attempt()


_last_notice = 0.0  # when the user was last informed of waiting, for all threads
_notice_lock = threading.Lock()


def retry(path: str, patience: float | None = None):
  """How a request is repeated: with pauses that grow from half a second to ten.

  Args:
    path: for the notice that a command is waiting.
    patience: how long to retry, s; None for `PATIENCE_SECONDS`.
  """
  from google.api_core.retry import Retry
  from google.cloud.storage.exceptions import DataCorruption

  began = time.monotonic()
  patience = PATIENCE_SECONDS if patience is None else patience

  def limit(error):
    return min(patience, EXPIRED_PATIENCE_SECONDS) if errors.is_about_credentials(error) else patience

  def should_retry(error):
    if isinstance(error, DataCorruption):
      return False  # `download` starts again
    return errors.is_transient(error) and time.monotonic() - began < limit(error)

  def inform_user(error):
    global _last_notice
    now = time.monotonic()
    with _notice_lock:
      if now - began < FIRST_NOTICE_SECONDS or now - _last_notice < NOTICE_SECONDS:
        return
      _last_notice = now
    why = errors.reason(error)
    print(f"waiting for {path} ({why}), for up to {limit(error):.0f} s in total", file=sys.stderr, flush=True)

  return Retry(should_retry, initial=0.5, maximum=10, multiplier=2, timeout=patience, on_error=inform_user)
