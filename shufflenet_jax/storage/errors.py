"""What a storage error means, decided by its class and its code, never by its text.

There are four meanings, for every file system and client library that this project uses:

  absent     `FileNotFoundError`: the file or folder does not exist. No other failure is reported this way.
  permanent  `Refused`, exit status 2: no such bucket, no permission, no space. Trying again would not help.
  transient  `Unavailable`, exit status 1: no answer, too many requests, an expired token. Another start may succeed.
  contents   returned unchanged: the bytes that were read are not what a decoder or parser expects.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from shufflenet_jax.errors import CommandEnded, RunFailed, UserError
from shufflenet_jax.storage import paths


class StorageError(Exception):
  """An error of a file system or client library, translated by `translate_error`."""


class Refused(StorageError, UserError):
  """Storage refuses, and would refuse again: no such bucket, no permission, no space."""


class Locked(Refused):
  """Another process of this machine is using a folder."""


class Unavailable(StorageError, RunFailed):
  """Storage gave no answer or a useless one; another start may succeed."""


class Outage(Unavailable):
  """A bucket did not answer during the whole time that it was retried; the next request would wait as long."""


_PERMANENT_ERRNOS = {
  errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOTDIR,
  errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EINVAL,
}  # fmt: skip
_TRANSIENT_HTTP = {408, 429, 500, 502, 503, 504}
_ABSENT, _PERMANENT, _TRANSIENT, _CONTENTS = "absent", "permanent", "transient", "contents"

# Whether any bucket has answered this process. If so, refused credentials have expired; otherwise they are wrong.
credentials_worked = False


def translate_error(error: BaseException, path: str, doing: str = "read") -> BaseException:
  """The exception to raise in place of an exception of a file system or client library.

  Args:
    error: the exception that was raised.
    path: of the file or folder, for the message.
    doing: a participle for the message: read, written, listed, ...

  Returns:
    A `FileNotFoundError`, a `Refused` or an `Unavailable`; `error` itself if it is one of these, another `UserError`,
    or an error about contents.
  """
  if isinstance(error, CommandEnded):
    return error
  meaning, why, remedy = _meaning(error)
  if doing == "written" and not isinstance(error, OSError) and is_full_disk(error, path):
    meaning, why = _PERMANENT, os.strerror(errno.ENOSPC)
  if meaning == _ABSENT:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
  if meaning == _PERMANENT:
    return Refused(f"{path} cannot be {doing}: {why}{remedy}")
  if meaning == _TRANSIENT:
    kind = Outage if paths.is_remote(path) and not _is_corrupted(error) else Unavailable
    return kind(f"{path} cannot be {doing} now ({why}); run the same command again")
  return error


@contextlib.contextmanager
def translate_errors(path: str, doing: str = "read") -> Iterator[None]:
  """Applies `translate_error` to any error inside the block. When writing, a missing file or folder is `Refused`."""
  try:
    yield
  except (CommandEnded, BrokenPipeError):  # a BrokenPipeError comes from the console, not from storage
    raise
  except Exception as error:
    translated = translate_error(error, path, doing)
    if isinstance(translated, FileNotFoundError) and doing == "written":
      translated = Refused(f"{path} cannot be written: the folder does not exist, or was removed")
    if translated is error:
      raise
    raise translated from error


def is_transient(error: BaseException) -> bool:
  """Whether trying again may help."""
  return _meaning(error)[0] == _TRANSIENT


def is_full_disk(error: BaseException, path: str) -> bool:
  """Whether an error means that the disk, or a quota, is full.

  TensorFlow uses one class for a full disk, too little memory and too many requests. For a local path it is the disk.
  """
  if isinstance(error, OSError):
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
  tf = sys.modules.get("tensorflow")
  return tf is not None and isinstance(error, tf.errors.ResourceExhaustedError) and not paths.is_remote(path)


def _is_corrupted(error: BaseException) -> bool:
  """Whether an object's bytes do not match its checksum, which is no evidence about other objects."""
  client = sys.modules.get("google.cloud.storage.exceptions")
  return client is not None and isinstance(error, client.DataCorruption)


def reason(error: BaseException) -> str:
  """The cause of an error, in a few words."""
  return _meaning(error)[1]


def is_about_credentials(error: BaseException) -> bool:
  """Whether an error means that credentials are refused or cannot be renewed."""
  if not type(error).__module__.startswith("google."):
    return False
  from google.auth.exceptions import RefreshError

  return getattr(error, "code", None) == 401 or isinstance(error, RefreshError)


def _meaning(error: BaseException) -> tuple[str, str, str]:
  """(meaning, reason, remedy) of an error, whichever library raised it."""
  if isinstance(error, MemoryError):
    return _TRANSIENT, "out of memory", ""
  for of_library in (_of_tensorflow, _of_google, _of_requests):  # first, as some of their errors are also OSErrors
    meaning = of_library(error)
    if meaning:
      return meaning
  if isinstance(error, OSError):
    return _of_system(error)
  return _CONTENTS, "", ""


def _of_system(error: OSError) -> tuple[str, str, str]:
  reason = error.strerror or str(error) or type(error).__name__
  if isinstance(error, FileNotFoundError):
    return _ABSENT, reason, ""
  if error.errno in _PERMANENT_ERRNOS:
    return _PERMANENT, reason, ""
  if error.errno is None and not isinstance(error, ConnectionError | TimeoutError):
    return _PERMANENT, reason, ""  # raised by a library, not the system: by requests, if a certificate file is missing
  return _TRANSIENT, reason, ""


def _of_tensorflow(error: BaseException) -> tuple[str, str, str] | None:
  tf = sys.modules.get("tensorflow")
  if tf is None or not isinstance(error, tf.errors.OpError):
    return None
  reason = type(error).__name__.removesuffix("Error")
  if isinstance(error, tf.errors.NotFoundError):
    return _ABSENT, reason, ""
  if isinstance(error, tf.errors.InvalidArgumentError | tf.errors.DataLossError | tf.errors.OutOfRangeError):
    return _CONTENTS, reason, ""
  if isinstance(error, tf.errors.PermissionDeniedError):
    return _PERMANENT, "no permission", ""
  if isinstance(error, tf.errors.UnauthenticatedError):
    return _of_credentials(reason)
  return _TRANSIENT, reason, ""


def _of_google(error: BaseException) -> tuple[str, str, str] | None:
  if not type(error).__module__.startswith("google."):
    return None
  from google.api_core import exceptions as api
  from google.auth import exceptions as auth
  from google.cloud.storage import exceptions as storage

  if isinstance(error, api.RetryError):
    return _meaning(error.cause) if error.cause else (_TRANSIENT, "no answer", "")
  if isinstance(error, storage.InvalidResponse):  # of uploads and downloads
    return _of_status(error.response.status_code)
  if isinstance(error, api.GoogleAPICallError):
    return _of_status(int(error.code)) if error.code else (_TRANSIENT, type(error).__name__, "")
  if isinstance(error, auth.DefaultCredentialsError | auth.InvalidOperation):  # the latter from an anonymous client
    return _PERMANENT, "no credentials were found", _LOG_IN
  if isinstance(error, auth.RefreshError) and not error.retryable:
    return _of_credentials("the credentials cannot be refreshed")
  if isinstance(error, auth.GoogleAuthError | storage.DataCorruption):
    return _TRANSIENT, type(error).__name__, ""
  return None


def _of_requests(error: BaseException) -> tuple[str, str, str] | None:
  if "requests" not in sys.modules:
    return None
  import http.client

  import requests
  import urllib3

  if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | http.client.HTTPException):
    return _TRANSIENT, type(error).__name__, ""
  return None


_LOG_IN = "; log in with `gcloud auth application-default login`, or give the machine a service account"


def _of_status(status: int) -> tuple[str, str, str]:
  """The meaning of an HTTP status of the storage service."""
  words = f"HTTP {status}"
  if status in (404, 410):
    return _ABSENT, words, ""
  if status == 401:
    return _of_credentials(words)
  if status == 403:
    return _PERMANENT, f"no permission ({words})", "; give this account the role Storage Object User on the bucket"
  return (_TRANSIENT if status in _TRANSIENT_HTTP else _PERMANENT), words, ""


def _of_credentials(reason: str) -> tuple[str, str, str]:
  if credentials_worked:
    return _TRANSIENT, f"the credentials have expired: {reason}", ""
  return _PERMANENT, f"the credentials are not accepted ({reason})", _LOG_IN
