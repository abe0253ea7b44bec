"""From a config's `model` section to a Flax module."""

import jax.numpy as jnp

from shufflenet_jax.errors import UserError
from shufflenet_jax.models.shufflenet import ShuffleNetV1, stage_channels

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build(config) -> ShuffleNetV1:
  """The network that a config's `model` section describes.

  Raises:
    UserError: a value that no network has.
  """
  if config.dtype not in DTYPES:
    raise UserError(f"config.model.dtype={config.dtype!r} is not one of {', '.join(DTYPES)}")
  if config.num_classes < 1:
    raise UserError(f"config.model.num_classes={config.num_classes} must be 1 or more")
  if len(config.repeats) != 3 or min(config.repeats) < 1:
    raise UserError(f"config.model.repeats={tuple(config.repeats)} must be three positive numbers, as (4, 8, 4)")
  try:
    stage_channels(config.groups, config.scale)
  except ValueError as error:
    raise UserError(f"config.model: {error}") from None
  return ShuffleNetV1(**config.to_dict() | {"dtype": DTYPES[config.dtype], "repeats": tuple(config.repeats)})
