"""Pictures named on a command line, decoded in advance by threads."""

import collections
import itertools
import threading
import typing
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

from shufflenet_jax import storage
from shufflenet_jax.data import cores, picture_formats
from shufflenet_jax.data.listing import is_hidden, is_picture_file, printable
from shufflenet_jax.errors import UserError


class Picture(typing.NamedTuple):
  """A picture, or the reason why there is none.

  Attributes:
    path: as the user wrote it, or derived from that.
    wrong: one line that explains why there is no picture; empty if there is one, or if it has not been read yet.
    decoded: what `decoded` made of its bytes.
  """

  path: str
  wrong: str = ""
  decoded: Any = None


def find(arguments: list[str]) -> list[Picture]:
  """The pictures that files, folders and patterns name, in that order; those of a folder or pattern are sorted.

  Raises:
    Outage: a bucket does not answer.
  """
  return [picture for argument in arguments for picture in _find(argument)]


def _find(argument: str) -> list[Picture]:
  try:
    path = storage.normalize(argument)
    if storage.is_folder(path):
      return _in_folder(argument, path)
    if any(c in argument for c in "*?[") and not storage.is_file(path):
      matches = [Picture(match) for match in storage.glob(path)]
      return matches or [Picture(argument, f"{printable(argument)}: no file matches this pattern")]
  except FileNotFoundError:  # removed in the meantime; `decoded` will report it
    pass
  except storage.Outage:
    raise
  except (UserError, storage.StorageError) as error:
    return [Picture(argument, printable(str(error)))]
  return [Picture(argument)]


def _in_folder(argument: str, path: str) -> list[Picture]:
  """The files in a folder that evaluation, too, would treat as pictures."""
  names = [name for name, _ in storage.walk(path) if not is_hidden(name)]
  names = sorted(name for name in names if is_picture_file(storage.join(path, name)))
  if not names:
    return [Picture(argument, f"{printable(argument)}: a folder without pictures ({picture_formats.NAMES})")]
  return [Picture(storage.join(argument, name)) for name in names]


def decoded(named: list[Picture], decode: Callable[[bytes], Any], group_size: int) -> Iterator[list[Picture]]:
  """Reads and decodes pictures in threads, up to three groups before the caller asks for them.

  Args:
    named: pictures as `find` returns them.
    decode: the bytes of a file -> the decoded picture, or a `PictureError` with the reason why there is none.
    group_size: pictures in a group; the last group may be smaller.

  Yields:
    Groups of pictures with `decoded` or `wrong`, in the given order.

  Raises:
    Outage: a bucket does not answer. We stop at once, since every other picture would wait as long.
  """
  outage = threading.Event()

  def load(picture: Picture) -> Picture:
    path = picture.path
    if picture.wrong or outage.is_set():
      return picture
    try:
      encoded = storage.read_bytes(storage.normalize(path))
      return Picture(path, "", decode(encoded))
    except FileNotFoundError as error:
      return Picture(path, f"{printable(path)}: {error.strerror}")
    except storage.Outage:
      outage.set()
      raise
    except (UserError, storage.StorageError) as error:
      return Picture(path, printable(str(error)))
    except picture_formats.PictureError as error:
      return Picture(path, f"{printable(path)}: not an image that can be decoded: {error}")

  pool = futures.ThreadPoolExecutor(cores.count())  # decoders release Python's lock
  pending, remaining = collections.deque(), iter(named)
  try:
    while True:
      free = 3 * group_size - len(pending)
      pending.extend(pool.submit(load, picture) for picture in itertools.islice(remaining, free))
      if not pending:
        return
      group = []
      try:
        for _ in range(min(group_size, len(pending))):
          group.append(pending.popleft().result())
      except storage.Outage:
        if group:
          yield group
        raise
      yield group
  finally:
    pool.shutdown(wait=False, cancel_futures=True)  # what has not begun is not needed if the caller stops early
