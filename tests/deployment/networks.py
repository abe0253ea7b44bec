"""Networks to export: random parameters, and batch statistics that are none of the initial ones."""

import jax
import numpy as np

from configs import imagenet
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.deployment import network
from shufflenet_jax.deployment.description import Description
from shufflenet_jax.models import build

CLASSES = tuple(f"class {i}" for i in range(7))


def make(arguments: str, size: int = 64, classes: tuple[str, ...] = CLASSES) -> network.Network:
  """A network of the ImageNet config with these arguments, for pictures of `size` pixels."""
  config = imagenet.get_config(arguments)
  config.data.image_size, config.data.eval_resize, config.model.num_classes = size, size, len(classes)
  random = np.random.default_rng(0)

  def value(path, shape):
    name, dims = path[-1].key, shape.shape
    if name == "kernel":
      return random.normal(0, np.sqrt(2 / np.prod(dims[:-1])), dims)
    if name == "scale":  # below 1, so that sums of units do not grow from unit to unit; some are negative
      return random.uniform(0.3, 0.7, dims) * random.choice([-1, 1, 1, 1], dims)
    return random.uniform(0.5, 1.5, dims) if name == "var" else random.normal(0, 0.1, dims)

  shapes = build.variable_shapes(config.model, size)
  variables = jax.tree_util.tree_map_with_path(lambda *leaf: value(*leaf).astype(np.float32), shapes)
  forward = network.forward_of(config)
  description = Description(
    network=build.describe(config.model),
    classes=classes,
    height=size,
    width=size,
    resize=size,
    antialias=True,
    step=3,
    config=checkpoint.to_json(config),
  )
  return network.Network(lambda images: forward(variables, images), description)


def pictures(count: int, size: int = 64) -> np.ndarray:
  """Noise: uint8 (count, size, size, 3)."""
  return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)
