"""From a PyTorch file to a checkpoint in a new work directory."""

import contextlib
import importlib.resources
import io
import typing
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

from shufflenet_jax import signals, storage
from shufflenet_jax.checkpoints import checkpoint, saver
from shufflenet_jax.config import fields
from shufflenet_jax.errors import UserError
from shufflenet_jax.interop import torch_file, torch_layouts
from shufflenet_jax.models import build


class Imported(typing.NamedTuple):
  """A checkpoint made of a PyTorch file.

  Attributes:
    path: of the checkpoint.
    layout: which kind of state dict it was, for messages.
    network: its network in words, see `build.describe`.
    classes: the number of classes.
  """

  path: str
  layout: str
  network: str
  classes: int


def imagenet_class_names() -> tuple[str, ...]:
  """`n01440764 tench, Tinca tinca` and 999 more, in label order."""
  text = importlib.resources.files("shufflenet_jax.interop").joinpath("imagenet_classes.txt").read_text()
  return tuple(text.splitlines())


def import_file(path: str, workdir: str) -> Imported:
  """Writes a checkpoint of step 0 with the file's weights, and a config with the default of every other field.

  Args:
    path: of a file that PyTorch or safetensors has written.
    workdir: the work directory to make; absent or empty.

  Raises:
    UserError: the file holds no known network, or the work directory cannot be written. Nothing is left there.
    RunFailed: the storage of the work directory does not answer. Nothing is left there.
  """
  _check_new(workdir)
  variables, model, layout = torch_layouts.convert(torch_file.load(path))
  config = fields.default_config(**model)
  if layout.bgr:  # the authors' release: unscaled values from 0 to 255, resized by OpenCV, which does not antialias
    config.data.mean, config.data.std, config.data.antialias = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False
  names = imagenet_class_names()
  if model["num_classes"] != len(names):
    names = tuple(map(str, range(model["num_classes"])))
  with signals.finished_first(), _quiet():
    try:
      written = saver.write_variables(workdir, jax.tree.map(jnp.asarray, variables), config, names)
    except storage.StorageError as error:
      raise type(error)(f"--to={workdir} cannot be written, and nothing was left there: {error}") from None
    except Exception as error:  # whatever Orbax's layers raise
      raise UserError(
        f"--to={workdir} cannot be written, and nothing was left there: {checkpoint.short(error)}"
      ) from None
  return Imported(written, layout.name, build.describe(config.model), model["num_classes"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences Orbax's threads, which print tracebacks after a failed write; the exception has the same reason."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    with contextlib.redirect_stderr(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


def _check_new(workdir: str) -> None:
  path = storage.normalize(workdir, "--to=")
  if storage.is_file(path):
    raise UserError(f"--to={workdir} is a file; name a new directory")
  content = dict(storage.walk(path)) if storage.is_folder(path) else {}
  if content and all(name.startswith(f"{checkpoint.FOLDER}/0.") for name in content):
    storage.remove_folder(path)  # of an import that was killed: nothing in it is whole
  elif content or (storage.is_folder(path) and storage.list_folder(path)):
    raise UserError(f"--to={workdir} is not empty; name a new directory")
