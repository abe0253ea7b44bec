"""Folders of this machine for what is on its way to or from a bucket."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator

from shufflenet_jax.storage import trouble

_REMEDY = "; it is for what is on its way to or from a bucket: set TMPDIR to a folder with room"


@contextlib.contextmanager
def folder() -> Iterator[str]:
  """Yields an empty folder, which is removed at the end.

  Raises:
    Refused: it cannot be made, or is full. Without this, that would be told as the bucket's fault.
  """
  with contextlib.ExitStack() as stack:
    try:
      path = stack.enter_context(tempfile.TemporaryDirectory(prefix="shufflenet_jax_", ignore_cleanup_errors=True))
    except OSError as error:
      raise trouble.Refused(f"no temporary folder can be made ({error.strerror}){_REMEDY}") from error
    try:
      yield path
    except Exception as error:
      cause = error.__cause__ if isinstance(error, trouble.Refused) else error
      if cause and trouble.is_full_disk(cause, path):
        raise trouble.Refused(f"{path} cannot be written: {os.strerror(errno.ENOSPC)}{_REMEDY}") from error
      raise
