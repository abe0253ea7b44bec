"""Makes an Orbax checkpoint of a PyTorch ShuffleNet V1: the authors' release or pytorchcv's.

    python -m shufflenet_jax.interop.import_torch --from=FILE.pth.tar --to=DIR

FILE is what torch.save wrote of a state dict, alone or in the usual containers, or a safetensors file; no code in it is
run. Layout, groups and scale are read off the file. `evaluate`, `predict` and `train --config.init_from=DIR` take DIR
as it is: how pictures are resized and scaled, and the 1,000 ImageNet class names, are in it. Needs PyTorch: python -m
pip install torch==2.13.0.
"""

import contextlib
import importlib.resources
import io

from absl import flags, logging

from shufflenet_jax import cli, signals
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  cli.define_path("from", None, "The PyTorch or safetensors file.")
  cli.define_path("to", None, "The work directory to make; an empty one will do.")
  cli.require("from", "to")


def imagenet_class_names() -> tuple[str, ...]:
  """`n01440764 tench, Tinca tinca` and 999 more, in label order."""
  text = importlib.resources.files("shufflenet_jax.interop").joinpath("imagenet_classes.txt").read_text()
  return tuple(text.splitlines())


def import_torch(path: str, workdir: str) -> str:
  """Writes the checkpoint; returns its path.

  Raises:
    UserError: no file of a known network, or no place to write to. Nothing has been written.
  """
  import jax
  import jax.numpy as jnp

  from shufflenet_jax.checkpoints import saver
  from shufflenet_jax.config import recipes
  from shufflenet_jax.interop.torch_file import load
  from shufflenet_jax.interop.torch_layouts import convert
  from shufflenet_jax.models import build

  _check_new(workdir)
  variables, model, layout = convert(load(path))
  config = recipes.load("imagenet").get_config()
  config.model = model
  if layout.bgr:  # the authors' release: 0-255 as they are, resized by OpenCV, which does not antialias
    config.data.mean, config.data.std, config.data.antialias = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False
  names = imagenet_class_names()
  if model["num_classes"] != len(names):
    names = tuple(map(str, range(model["num_classes"])))
  with signals.finished_first(), _quiet():
    try:
      written = saver.write_variables(workdir, jax.tree.map(jnp.asarray, variables), config, names)
    except UserError as error:
      raise type(error)(f"--to={workdir} cannot be written, and nothing was left there: {error}") from None
    except Exception as error:  # Orbax raises whatever its layers meet; what the system said stands last
      text = " ".join(str(error).split())
      text = text if len(text) < 200 else f"... {text[-150:]}"
      raise UserError(f"--to={workdir} cannot be written, and nothing was left there: {text}") from None
  print(f"read as {layout.name}: {build.describe(config.model)}, {model['num_classes']} classes")
  return written


@contextlib.contextmanager
def _quiet():
  """Where writing fails, Orbax's threads print tracebacks until the process ends; the error raised says as much."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  with contextlib.redirect_stderr(io.StringIO()):
    yield
  logging.set_verbosity(verbosity)


def _check_new(workdir: str) -> None:
  from shufflenet_jax import storage
  from shufflenet_jax.checkpoints import checkpoint

  path = storage.normalize(workdir, "--to=")
  if storage.is_file(path):
    raise UserError(f"--to={workdir} is a file; name a new directory")
  there = dict(storage.walk(path)) if storage.is_folder(path) else {}
  if there and all(name.startswith(f"{checkpoint.FOLDER}/0.") for name in there):
    storage.remove_folder(path)  # of an import that was killed: nothing in it is whole
  elif there or (storage.is_folder(path) and storage.list_folder(path)):
    raise UserError(f"--to={workdir} is not empty; name a new directory")


def main(arguments: list[str]) -> None:
  cli.refuse_arguments(arguments)
  workdir = flags.FLAGS.to
  print(f"checkpoint: {import_torch(flags.FLAGS['from'].value, workdir)}")
  print(f"next: python -m shufflenet_jax.predict --checkpoint={workdir} picture.jpg")


if __name__ == "__main__":
  cli.run(main)
