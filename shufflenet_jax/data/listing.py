"""Which entries of a folder count as classes and pictures, and how their names are printed."""

import os

from shufflenet_jax import storage
from shufflenet_jax.data.picture_formats import HEAD_BYTES, has_suffix, is_picture


def visible_folders(folder: str) -> list[str]:
  """Sorted names of the folders in a folder, without hidden ones."""
  return [name for name, is_folder in storage.list_folder(folder) if is_folder and not name.startswith(".")]


def is_hidden(path: str) -> bool:
  """Whether any part of a relative path begins with a dot, like the files that macOS adds to archives."""
  return any(part.startswith(".") for part in path.split("/"))


def is_picture_file(path: str) -> bool:
  """Whether a file has the suffix of a picture or begins like one.

  The suffix alone is enough, so that a damaged picture is reported instead of ignored.
  """
  return has_suffix(path) or is_picture(storage.read_head(path, HEAD_BYTES))


def printable(path: str) -> str:
  """A path on one line for messages: bytes that are not text, and control characters, are escaped (`\\xe9`, `\\t`)."""
  text = os.fsencode(path).decode(errors="backslashreplace")
  return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
