"""Patterns of paths, by the same rules for local files and buckets: `glob.glob` itself hides what cannot be listed."""

import fnmatch
import re
from collections.abc import Callable, Iterator

from shufflenet_jax.storage import paths

_MAGIC = re.compile(r"[*?\[]")


def expand(pattern: str, list_folder: Callable, walk: Callable) -> Iterator[str]:
  """Yields the files that a normalized pattern names.

  As in `glob.glob`: `*`, `?` and `[...]` stand for a part of a name, `**` as a whole name for any folders, and a name
  that begins with a dot matches only a pattern that does.

  Args:
    pattern: normalized, below the root or a bucket.
    list_folder, walk: of this package; a folder that is not there is a FileNotFoundError.

  Raises:
    what `list_folder` and `walk` raise; a missing folder simply holds no match.
  """
  names = pattern.split("/")
  if names[-1] == "**":
    names.append("*")
  first = next((i for i, name in enumerate(names) if _MAGIC.search(name)), len(names) - 1)
  yield from _below("/".join(names[:first]), names[first:], list_folder, walk)


def _below(folder: str, patterns: list[str], list_folder: Callable, walk: Callable) -> Iterator[str]:
  """`expand`, for what lies in a folder."""
  try:
    if patterns[0] == "**":
      files = walk(folder or "/", hidden=any(pattern.startswith(".") for pattern in patterns))
      found = [paths.join(folder, name) for name, _ in files if _match(name.split("/"), patterns)]
      yield from found
      return
    entries = [entry for entry in list_folder(folder or "/") if _match([entry[0]], patterns[:1])]
  except FileNotFoundError:
    return
  for name, is_folder in entries:
    if len(patterns) == 1 and not is_folder:
      yield paths.join(folder, name)
    elif len(patterns) > 1 and is_folder:
      yield from _below(paths.join(folder, name), patterns[1:], list_folder, walk)


def _match(names: list[str], patterns: list[str]) -> bool:
  if not names or not patterns:
    return names == patterns
  if patterns[0] == "**":
    return _match(names, patterns[1:]) or (not names[0].startswith(".") and _match(names[1:], patterns))
  hidden = names[0].startswith(".") and not patterns[0].startswith(".")
  return not hidden and fnmatch.fnmatchcase(names[0], patterns[0]) and _match(names[1:], patterns[1:])
