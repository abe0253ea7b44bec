"""The configs that come with the package, found from any folder.

In a checkout they are the top-level folder `configs/`; a wheel holds the same files as `shufflenet_jax/configs/` (see
`package-dir` in pyproject.toml). They are run by path and never imported as `configs`, because that name may belong to
one of the user's own packages.
"""

import os
import pathlib

from shufflenet_jax.errors import UserError


def folder() -> pathlib.Path:
  """The folder of the shipped configs."""
  package = pathlib.Path(__file__).resolve().parents[1]
  installed = package / "configs"
  return installed if installed.is_dir() else package.parent / "configs"


def find(path: str) -> str:
  """The file that a path names: that file if it exists, otherwise the shipped config if the path is configs/NAME.py.

  Raises:
    UserError: neither exists.
  """
  given = os.path.expanduser(path)
  if os.path.isfile(given):
    return given
  shipped = folder() / os.path.basename(given)
  if os.path.normpath(given) == os.path.join("configs", shipped.name) and shipped.is_file():
    return str(shipped)
  names = ", ".join(sorted(f"configs/{file.name}" for file in folder().glob("[!_]*.py")))
  raise UserError(f"--config={path} does not exist; name a config file of your own or a shipped one: {names}")
