"""Pictures that a command line names, decoded ahead of their use."""

import collections
import itertools
import threading
import typing
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
import tensorflow as tf

from shufflenet_jax import storage
from shufflenet_jax.data import cores, pictures
from shufflenet_jax.data.sources.folders import is_hidden, is_picture_file, readable
from shufflenet_jax.errors import UserError


class Picture(typing.NamedTuple):
  """A picture, or an argument that leads to none.

  Attributes:
    path: as the user wrote it, or as it follows from that.
    wrong: one line that says why there is no picture; empty if there is one, or it was not read yet.
    image: uint8 (h, w, 3) once it is decoded.
  """

  path: str
  wrong: str = ""
  image: np.ndarray | None = None


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
      return matches or [Picture(argument, f"{readable(argument)}: no file matches this pattern")]
  except FileNotFoundError:  # removed meanwhile; reading it says so
    pass
  except storage.Outage:
    raise
  except UserError as error:
    return [Picture(argument, readable(str(error)))]
  return [Picture(argument)]


def _in_folder(argument: str, path: str) -> list[Picture]:
  """What evaluation takes for pictures in a folder."""
  names = [name for name, _ in storage.walk(path) if not is_hidden(name)]
  names = sorted(name for name in names if is_picture_file(storage.join(path, name)))
  if not names:
    return [Picture(argument, f"{readable(argument)}: a folder without pictures ({pictures.NAMES})")]
  return [Picture(storage.join(argument, name)) for name in names]


def decoded(named: list[Picture], decode: Callable[[bytes], np.ndarray], group_size: int) -> Iterator[list[Picture]]:
  """Reads and decodes pictures in threads, up to three groups ahead of the caller.

  Args:
    named: as `find` gives them.
    decode: a file's bytes -> the image.
    group_size: how many to a group; the last may be smaller.

  Yields:
    Groups of pictures with `image` or `wrong`, in the order given.

  Raises:
    Outage: a bucket does not answer. For each of the other pictures that would take as long to find out.
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
      return Picture(path, f"{readable(path)}: {error.strerror}")
    except storage.Outage:
      outage.set()
      raise
    except UserError as error:
      return Picture(path, readable(str(error)))
    except tf.errors.InvalidArgumentError:
      return Picture(path, f"{readable(path)}: not an image that can be decoded: {pictures.why_not(encoded)}")

  pool = futures.ThreadPoolExecutor(cores.count())  # TensorFlow lets go of Python's lock where it decodes
  ahead, rest = collections.deque(), iter(named)
  try:
    while True:
      ahead.extend(pool.submit(load, picture) for picture in itertools.islice(rest, 3 * group_size - len(ahead)))
      if not ahead:
        return
      group = []
      try:
        for _ in range(min(group_size, len(ahead))):
          group.append(ahead.popleft().result())
      except storage.Outage:
        if group:
          yield group
        raise
      yield group
  finally:
    pool.shutdown(wait=False, cancel_futures=True)  # those not begun yet, if the caller stops early
