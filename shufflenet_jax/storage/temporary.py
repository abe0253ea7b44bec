"""Folders of this machine for what is on its way to or from a bucket."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator

from shufflenet_jax.storage import trouble

_REMEDY = "; files on their way to or from a bucket are kept there: set TMPDIR to a folder with more room"


@contextlib.contextmanager
def folder() -> Iterator[str]:
  """Yields an empty folder, which is removed at the end.

  Raises:
    Refused: it cannot be made, or is full; otherwise the error would be blamed on the bucket.
  """
  with contextlib.ExitStack() as stack:
    try:
      path = stack.enter_context(tempfile.TemporaryDirectory(prefix="shufflenet_jax_", ignore_cleanup_errors=True))
    except OSError as error:
      raise trouble.Refused(f"no temporary folder can be made ({error.strerror}){_REMEDY}") from error
    with room(path):
      yield path


@contextlib.contextmanager
def room(path: str) -> Iterator[None]:
  """Around writing to such a folder: raises a Refused that names it and the remedy where it is full."""
  try:
    yield
  except Exception as error:
    cause = error.__cause__ if isinstance(error, trouble.Refused) else error
    if cause and trouble.is_full_disk(cause, path):
      why = getattr(cause, "strerror", None) or os.strerror(errno.ENOSPC)
      raise trouble.Refused(f"{path} cannot be written: {why}{_REMEDY}") from error
    raise
