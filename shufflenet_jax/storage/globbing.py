"""Patterns of paths, by the same rules for local files and buckets.

`glob.glob` ignores folders that cannot be listed; here that is an error.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator

from shufflenet_jax.storage import paths

_MAGIC = re.compile(r"[*?\[]")


def expand(pattern: str, list_folder: Callable, walk: Callable) -> Iterator[str]:
  """Yields the files that match a normalized pattern.

  As in `glob.glob`, `*`, `?` and `[...]` match parts of a name, `**` as a whole name matches any number of folders, and
  names that begin with a dot match only patterns that do so too.

  Args:
    pattern: an absolute local path or a gs:// path.
    list_folder: `storage.list_folder`.
    walk: `storage.walk`.

  Raises:
    The errors of these two functions, except FileNotFoundError: a folder that does not exist has no match.
  """
  names = pattern.split("/")
  if names[-1] == "**":
    names.append("*")
  first = next((i for i, name in enumerate(names) if _MAGIC.search(name)), len(names) - 1)
  yield from _below("/".join(names[:first]), names[first:], list_folder, walk)


def _below(folder: str, patterns: list[str], list_folder: Callable, walk: Callable) -> Iterator[str]:
  """Yields the files in a folder that match a pattern relative to the folder, given as a list of its names."""
  try:
    if patterns[0] == "**":
      files = walk(folder or "/", hidden=any(pattern.startswith(".") for pattern in patterns))
      yield from [paths.join(folder, name) for name, _ in files if _match(name.split("/"), patterns)]
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
  """Whether the names of a path match the names of a pattern, one by one."""
  if not names or not patterns:
    return names == patterns
  if patterns[0] == "**":
    return _match(names, patterns[1:]) or (not names[0].startswith(".") and _match(names[1:], patterns))
  hidden = names[0].startswith(".") and not patterns[0].startswith(".")
  return not hidden and fnmatch.fnmatchcase(names[0], patterns[0]) and _match(names[1:], patterns[1:])
