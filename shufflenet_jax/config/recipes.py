"""The configs that come with the package, found from any folder.

In a checkout they are the top-level folder `configs/`; a wheel holds the same files as `shufflenet_jax/configs/` (see
`package-dir` in pyproject.toml). They are loaded by path and never imported as `configs`, because that name may well
belong to a package of the user's.
"""

import functools
import importlib.util
import os
import pathlib
import types

from shufflenet_jax.errors import UserError


def folder() -> pathlib.Path:
  """Where the shipped configs are."""
  package = pathlib.Path(__file__).resolve().parents[1]
  installed = package / "configs"
  return installed if (installed / "imagenet.py").exists() else package.parent / "configs"


@functools.cache
def load(name: str) -> types.ModuleType:
  """The module of a shipped config: `load("imagenet").get_config()` is the paper's recipe, with every field there is.

  Raises:
    FileNotFoundError: there is no shipped config of that name.
  """
  spec = importlib.util.spec_from_file_location(f"shufflenet_jax.configs.{name}", folder() / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


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
  raise UserError(f"--config={path} is no file; give one of your own, or one that is shipped: {names}")
