"""What a storage error means, decided by its class and its code, never by its text.

Four meanings, for every file system and client library that this project uses:

  absent    `FileNotFoundError`: the file or folder is not there. Nothing else is.
  lasting   `Refused`, exit status 2: no such bucket, no permission, no space. Trying again would not help.
  passing   `Unavailable`, exit status 1: no answer, too many requests, an expired token. Starting again may help.
  contents  returned as they are: what was read is not what a decoder or parser wants.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from shufflenet_jax.errors import CommandEnded, RunFailed, UserError
from shufflenet_jax.storage import paths


class StorageError(Exception):
  """What `explain` makes of an error of a file system or a client library."""


class Refused(StorageError, UserError):
  """Storage says no, and would say so again: no such bucket, no permission, no space."""


class Locked(Refused):
  """Another process of this machine is at work in a folder."""


class Unavailable(StorageError, RunFailed):
  """Storage did not answer, or not usefully; another start may find it well."""


_LASTING_ERRNOS = {
  errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOTDIR,
  errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EINVAL,
}  # fmt: skip
_PASSING_HTTP = {408, 429, 500, 502, 503, 504}
_ABSENT, _LASTING, _PASSING, _CONTENTS = "absent", "lasting", "passing", "contents"

# Whether a bucket has ever answered this process. Credentials that worked before have expired; others are wrong.
accepted = False


def explain(error: BaseException, path: str, doing: str = "read") -> BaseException:
  """The exception to raise in place of what a file system or a client library raised.

  Args:
    error: what was raised.
    path: of the file or folder, for the message.
    doing: read, written, listed, ..., for the message.

  Returns:
    A `FileNotFoundError`, a `Refused` or an `Unavailable`; `error` itself where it is one of these, another
    `CommandEnded`, or an error about contents.
  """
  if isinstance(error, CommandEnded):
    return error
  meaning, why, remedy = _meaning(error)
  if doing == "written" and is_full_disk(error, path):
    meaning, why = _LASTING, os.strerror(errno.ENOSPC)
  if meaning == _ABSENT:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
  if meaning == _LASTING:
    return Refused(f"{path} cannot be {doing}: {why}{remedy}")
  if meaning == _PASSING:
    return Unavailable(f"{path} cannot be {doing} now ({why}); run the same command again")
  return error


@contextlib.contextmanager
def explained(path: str, doing: str = "read") -> Iterator[None]:
  """Raises what `explain` says in place of any error within. When writing, a missing file or folder is Refused."""
  try:
    yield
  except (CommandEnded, BrokenPipeError):  # of the console: no error of storage
    raise
  except Exception as error:
    better = explain(error, path, doing)
    if isinstance(better, FileNotFoundError) and doing == "written":
      better = Refused(f"{path} cannot be written: the folder does not exist, or was removed")
    if better is error:
      raise
    raise better from error


def is_passing(error: BaseException) -> bool:
  """Whether trying again may help."""
  return _meaning(error)[0] == _PASSING


def is_full_disk(error: BaseException, path: str) -> bool:
  """Whether it says that there is no room at a path.

  TensorFlow has one error for a full disk, for too little memory and for too many requests.
  """
  if isinstance(error, OSError):
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
  tf = sys.modules.get("tensorflow")
  return tf is not None and isinstance(error, tf.errors.ResourceExhaustedError) and not paths.is_remote(path)


def reason(error: BaseException) -> str:
  """A few words on what went wrong."""
  return _meaning(error)[1]


def is_about_credentials(error: BaseException) -> bool:
  """Whether it says that credentials are not accepted, or cannot be renewed."""
  if not type(error).__module__.startswith("google."):
    return False
  from google.auth.exceptions import RefreshError

  return getattr(error, "code", None) == 401 or isinstance(error, RefreshError)


def _meaning(error: BaseException) -> tuple[str, str, str]:
  """(meaning, reason, remedy) of an error, whichever library raised it."""
  if isinstance(error, MemoryError):
    return _PASSING, "out of memory", ""
  for judge in (_of_tensorflow, _of_google, _of_requests):  # whose exceptions may be OSErrors as well
    judged = judge(error)
    if judged:
      return judged
  if isinstance(error, OSError):
    return _of_system(error)
  return _CONTENTS, "", ""


def _of_system(error: OSError) -> tuple[str, str, str]:
  reason = error.strerror or str(error) or type(error).__name__
  if isinstance(error, FileNotFoundError):
    return _ABSENT, reason, ""
  if error.errno in _LASTING_ERRNOS:
    return _LASTING, reason, ""
  if error.errno is None and not isinstance(error, ConnectionError | TimeoutError):
    return _LASTING, reason, ""  # a library's own, as of requests about its certificates
  return _PASSING, reason, ""


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
    return _LASTING, "no permission", ""
  if isinstance(error, tf.errors.UnauthenticatedError):
    return _of_credentials(reason)
  return _PASSING, reason, ""


def _of_google(error: BaseException) -> tuple[str, str, str] | None:
  if not type(error).__module__.startswith("google."):
    return None
  from google.api_core import exceptions as api
  from google.auth import exceptions as auth
  from google.cloud.storage import exceptions as client

  if isinstance(error, api.RetryError):
    return _meaning(error.cause) if error.cause else (_PASSING, "no answer", "")
  if isinstance(error, client.InvalidResponse):  # of uploads and downloads
    return _of_status(error.response.status_code)
  if isinstance(error, api.GoogleAPICallError):
    return _of_status(int(error.code)) if error.code else (_PASSING, type(error).__name__, "")
  if isinstance(error, auth.DefaultCredentialsError | auth.InvalidOperation):  # the latter of an anonymous client
    return _LASTING, "no credentials were found", _LOG_IN
  if isinstance(error, auth.RefreshError) and not error.retryable:
    return _of_credentials("the credentials cannot be refreshed")
  if isinstance(error, auth.GoogleAuthError | client.DataCorruption):
    return _PASSING, type(error).__name__, ""
  return None


def _of_requests(error: BaseException) -> tuple[str, str, str] | None:
  if "requests" not in sys.modules:
    return None
  import http.client

  import requests
  import urllib3

  if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | http.client.HTTPException):
    return _PASSING, type(error).__name__, ""
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
    return _LASTING, f"no permission ({words})", "; give this account the role Storage Object User on the bucket"
  return (_PASSING if status in _PASSING_HTTP else _LASTING), words, ""


def _of_credentials(reason: str) -> tuple[str, str, str]:
  if accepted:
    return _PASSING, f"the credentials have expired: {reason}", ""
  return _LASTING, f"the credentials are not accepted ({reason})", _LOG_IN
