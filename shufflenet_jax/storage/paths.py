"""Paths as people write them, and which of them are remote."""

import os
import re

from shufflenet_jax.errors import UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more: C:/ is a folder of another system
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def normalize(path: str | os.PathLike, what: str = "") -> str:
  """A path as the rest of this package takes it: absolute, without `~`; or `gs://BUCKET[/NAME]`, without a last `/`.

  Args:
    path: a local path, `file:///...` or `gs://...`.
    what: what stands before the path in an error, for instance `--workdir=`.

  Raises:
    UserError: no path, another scheme, or no such user or bucket name.
  """
  text = os.fspath(path)
  if not text or "\0" in text:
    raise UserError(f"{what}{text!r} is no path; give a local path or gs://BUCKET/PATH")
  scheme = _SCHEME.match(text)
  if scheme and text.startswith("file:///"):
    return os.path.abspath(text.removeprefix("file://"))
  if scheme and not text.startswith("gs://"):
    near = f"; did you mean gs://{text.split(':', 1)[1].lstrip('/')}?" if scheme[1].lower() == "gs" else ""
    raise UserError(f"{what}{text}: {scheme[1]}: is not supported; give a local path or gs://BUCKET/PATH{near}")
  if scheme:
    bucket = text.removeprefix("gs://").partition("/")[0]
    if not _BUCKET.fullmatch(bucket):
      raise UserError(f"{what}{text}: {bucket!r} is no name of a bucket; give gs://BUCKET/PATH")
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
  """The path of what lies in a folder."""
  return "/".join([folder.rstrip("/"), *names])


def name(path: str) -> str:
  """The last part of a path."""
  return path.rstrip("/").rpartition("/")[2]


def parent(path: str) -> str:
  """The folder that holds what the path names."""
  return path.rstrip("/").rpartition("/")[0] or "/"
