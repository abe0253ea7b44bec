"""An object in a bucket that grows."""

import contextlib

from shufflenet_jax.storage import bucket, trouble

_PATIENCE_SECONDS = 10  # whoever writes logs tries again later


class AppendedObject:
  """An object that grows. A bucket has no append: what is new becomes an object of its own, which is composed onto it.

  So an append costs three requests and the bytes that are new, whatever was written before.
  """

  def __init__(self, path: str, piece: str):
    """`piece`: the path of the object that holds what is new for a moment."""
    self._path, self._piece, self._generation = path, piece, None

  def write(self, content: bytes) -> None:
    """The whole content anew."""
    blob = bucket.handle(self._path)
    blob.upload_from_string(
      content, checksum="crc32c", retry=bucket.retry(self._path, _PATIENCE_SECONDS), timeout=bucket.TIMEOUT
    )
    self._generation = blob.generation

  def append(self, new: bytes) -> bool:
    """Returns whether that went well; if not, call `write` with the whole content."""
    from google.api_core.exceptions import GoogleAPICallError

    if self._generation is None:
      return False
    retry = bucket.retry(self._path, _PATIENCE_SECONDS)
    blob, piece = bucket.handle(self._path, self._generation), bucket.handle(self._piece)
    piece.upload_from_string(new, checksum="crc32c", retry=retry, timeout=bucket.TIMEOUT)
    try:
      blob.compose([blob, piece], if_generation_match=self._generation, retry=retry, timeout=bucket.TIMEOUT)
      self._generation = blob.generation
    except GoogleAPICallError as error:
      # An answer was lost and it is done, or another process wrote the object: as with no append.
      self._generation = None
      if trouble.is_passing(error):
        raise
      return False
    finally:
      with contextlib.suppress(Exception):  # the next piece takes its place
        piece.delete(retry=None, timeout=bucket.TIMEOUT)
    return True
