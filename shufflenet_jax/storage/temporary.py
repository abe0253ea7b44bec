"""Temporary local folders for files on their way to or from a bucket."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator

from shufflenet_jax.storage import errors

_REMEDY = "; it holds files on their way to or from a bucket: set TMPDIR to a folder with more room"


@contextlib.contextmanager
def folder() -> Iterator[str]:
  """Yields an empty folder, which is removed at the end of the block.

  Raises:
    errors.Refused: the folder cannot be made, or its disk is full. Otherwise the message would blame the bucket.
  """
  with contextlib.ExitStack() as stack:
    try:
      path = stack.enter_context(tempfile.TemporaryDirectory(prefix="shufflenet_jax_", ignore_cleanup_errors=True))
    except OSError as error:
      raise errors.Refused(f"no temporary folder can be made ({error.strerror}){_REMEDY}") from error
    with name_if_full(path):
      yield path


@contextlib.contextmanager
def name_if_full(path: str) -> Iterator[None]:
  """A context for writing to such a folder: if its disk is full, the error names the folder and the remedy."""
  try:
    yield
  except Exception as error:
    cause = error.__cause__ if isinstance(error, errors.Refused) else error
    if cause and errors.is_full_disk(cause, path):
      why = getattr(cause, "strerror", None) or os.strerror(errno.ENOSPC)
      raise errors.Refused(f"{path} cannot be written: {why}{_REMEDY}") from error
    raise
