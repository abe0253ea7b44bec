"""Normalizes paths that users write, and splits and joins them."""

import os
import re

from shufflenet_jax.errors import UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more, because C:/ is a Windows path
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def normalize(path: str | os.PathLike, what: str = "") -> str:
  """The form of a path that the rest of this package takes.

  Args:
    path: a local path, `file:///...` or `gs://...`.
    what: text before the path in an error message, for example `--workdir=`.

  Returns:
    An absolute path without `~`, or `gs://BUCKET[/NAME]` without a trailing `/`.

  Raises:
    UserError: an empty path, another scheme, an invalid bucket name, or `~NAME` of a user who does not exist.
  """
  text = os.fspath(path)
  if not text or "\0" in text:
    raise UserError(f"{what}{text!r} is not a path; give a local path or gs://BUCKET/PATH")
  scheme = _SCHEME.match(text)
  if scheme and text.startswith("file:///"):
    return os.path.abspath(text.removeprefix("file://"))
  if scheme and not text.startswith("gs://"):
    near = f"; did you mean gs://{text.split(':', 1)[1].lstrip('/')}?" if scheme[1].lower() == "gs" else ""
    raise UserError(f"{what}{text}: {scheme[1]}: is not supported; give a local path or gs://BUCKET/PATH{near}")
  if scheme:
    bucket = text.removeprefix("gs://").partition("/")[0]
    if not _BUCKET.fullmatch(bucket):
      raise UserError(f"{what}{text}: {bucket!r} is not a valid bucket name; give gs://BUCKET/PATH")
    return text.rstrip("/")
  expanded = os.path.expanduser(text)
  if expanded.startswith("~"):
    raise UserError(
      f"{what}{text}: there is no user {expanded.split('/')[0][1:]!r}; write ./{text} for a folder of that name"
    )
  return os.path.abspath(expanded)


def is_remote(path: str) -> bool:
  """Whether a normalized path is in a bucket."""
  return path.startswith("gs://")


def join(folder: str, *names: str) -> str:
  """`FOLDER/NAME/NAME...`: the path of what is in a folder under one name, or under several nested ones."""
  return "/".join([folder.rstrip("/"), *names])


def name(path: str) -> str:
  """The last part of a path."""
  return path.rstrip("/").rpartition("/")[2]


def parent(path: str) -> str:
  """The folder that contains a file or folder."""
  return path.rstrip("/").rpartition("/")[0] or "/"
