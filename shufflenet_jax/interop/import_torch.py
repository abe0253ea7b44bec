"""Makes an Orbax checkpoint of a PyTorch ShuffleNet V1: the authors' release or pytorchcv's.

    python -m shufflenet_jax.interop.import_torch --from=FILE.pth.tar --to=DIR

Layout, groups and scale are read off the file. `evaluate`, `predict` and `train --config.init_from=DIR` take DIR as it
is: how pictures are resized and scaled, and the 1,000 ImageNet class names, are in it. Needs PyTorch: pip install
'shufflenet_jax[torch]'.
"""

import importlib.resources

from absl import flags

from shufflenet_jax import cli, settings
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  flags.DEFINE_string("from", None, "The PyTorch file.")
  flags.DEFINE_string("to", None, "The work directory to make; must not hold checkpoints yet.")
  flags.mark_flags_as_required(["from", "to"])


def load(path: str) -> dict:
  """A PyTorch file's state dict as NumPy arrays, "module." prefixes removed; runs no code from the file.

  Raises:
    UserError: PyTorch is missing, or the file is not a whole state dict.
  """
  try:
    import torch
  except ImportError:
    raise UserError("PyTorch is needed to read its files: pip install 'shufflenet_jax[torch]'") from None
  try:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
  except FileNotFoundError:
    raise UserError(f"--from={path} does not exist") from None
  except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ...: all mean an unreadable file
    raise UserError(f"--from={path} is damaged or no PyTorch state dict: {str(error).splitlines()[0][:120]}") from None
  state_dict = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
  if not state_dict or not all(hasattr(value, "numpy") for value in state_dict.values()):
    raise UserError(f"--from={path} holds no state dict of tensors")
  return {key.removeprefix("module."): value.numpy() for key, value in state_dict.items()}


def imagenet_class_names() -> tuple[str, ...]:
  """`n01440764 tench, Tinca tinca` and 999 more, in label order."""
  text = importlib.resources.files("shufflenet_jax.interop").joinpath("imagenet_classes.txt").read_text()
  return tuple(text.splitlines())


def import_torch(path: str, workdir: str) -> str:
  """Writes the checkpoint; returns its path."""
  import jax
  import jax.numpy as jnp
  from etils import epath

  from configs import imagenet
  from shufflenet_jax import checkpoint, network
  from shufflenet_jax.interop.torch_layouts import convert

  if (epath.Path(workdir) / "checkpoints").exists():
    raise UserError(f"--to={workdir} holds checkpoints already; name a new directory")
  variables, model, layout = convert(load(path))
  config = imagenet.get_config()
  config.model = model | {"dtype": "float32"}
  _check_shapes(network.build(config.model), variables, layout)
  if layout.bgr:  # the authors' release: 0-255 as they are, resized by OpenCV, which does not antialias
    config.data.mean, config.data.std, config.data.antialias = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False
  names = imagenet_class_names()
  if model["num_classes"] != len(names):
    names = tuple(map(str, range(model["num_classes"])))
  written = checkpoint.write_variables(workdir, jax.tree.map(jnp.asarray, variables), config, names)
  print(f"read as {layout.name}: {network.describe(config.model)}, {model['num_classes']} classes")
  return written


def _check_shapes(model, variables: dict, layout) -> None:
  """Raises a UserError for the first array that the network, built for the file's groups and scale, has otherwise."""
  import jax
  import jax.numpy as jnp

  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  expected = settings.flat(jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), image))
  for name, array in settings.flat(variables).items():
    if name not in expected or expected[name].shape != array.shape:
      wanted = expected[name].shape if name in expected else "none"
      raise UserError(f"{name}, as read from {layout.name}, has shape {array.shape}; this network has {wanted} there")


def main(arguments: list[str]) -> None:
  if arguments:
    raise UserError(f"unexpected argument {arguments[0]!r}; flags begin with --")
  workdir = flags.FLAGS.to
  print(f"checkpoint: {import_torch(flags.FLAGS['from'].value, workdir)}")
  print(f"next: python -m shufflenet_jax.predict --checkpoint={workdir} picture.jpg")


if __name__ == "__main__":
  cli.run(main)
