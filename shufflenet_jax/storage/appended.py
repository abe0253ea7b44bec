"""An object in a bucket that grows."""

import contextlib

from shufflenet_jax.storage import client, errors

_PATIENCE_SECONDS = 10  # the caller, which writes logs, retries later


class AppendedObject:
  """An object that grows. Buckets cannot append, so new bytes are uploaded as a second object and composed onto it.

  An append costs three requests and the upload of the new bytes, however large the object is already.
  """

  def __init__(self, path: str, tail: str):
    """Writes nothing yet.

    Args:
      path: of the object.
      tail: path of the second object, which holds the new bytes for a moment.
    """
    self._path, self._tail, self._generation = path, tail, None

  def write(self, content: bytes) -> None:
    """Replaces the whole content."""
    blob = client.blob(self._path)
    retry = client.retry(self._path, _PATIENCE_SECONDS)
    blob.upload_from_string(content, checksum="crc32c", retry=retry, timeout=client.TIMEOUT)
    self._generation = blob.generation

  def append(self, new: bytes) -> bool:
    """Appends bytes. If it returns False, the object's state is unknown: call `write` with the whole content."""
    from google.api_core.exceptions import GoogleAPICallError

    if self._generation is None:
      return False
    retry = client.retry(self._path, _PATIENCE_SECONDS)
    blob, tail = client.blob(self._path, self._generation), client.blob(self._tail)
    tail.upload_from_string(new, checksum="crc32c", retry=retry, timeout=client.TIMEOUT)
    try:
      blob.compose([blob, tail], if_generation_match=self._generation, retry=retry, timeout=client.TIMEOUT)
      self._generation = blob.generation
    except GoogleAPICallError as error:
      # Either it was done and the answer was lost, or another process has written the object.
      self._generation = None
      if errors.is_transient(error):
        raise
      return False
    finally:
      with contextlib.suppress(Exception):  # the next append overwrites it
        tail.delete(retry=None, timeout=client.TIMEOUT)
    return True
