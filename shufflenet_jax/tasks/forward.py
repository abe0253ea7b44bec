"""The one path from pictures to a network's outputs, which training, evaluation, prediction and the TPU tools share."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Forward:
  """A network together with the scaling of the pictures that it takes.

  Attributes:
    model: a Flax module: float32 images (n, h, w, 3) -> outputs.
    mean, std: of each channel, on the 0-255 scale.
  """

  model: Any
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, variables: dict[str, Any], images: jax.Array) -> Any:
    """The outputs in inference: batch norm uses its running statistics. Formulations may fold it into convolutions.

    Args:
      variables: `params` and `batch_stats`.
      images: uint8 (n, h, w, 3).
    """
    return self.model.apply(variables, normalize(images, self.mean, self.std))

  def train(self, params, batch_stats, images: jax.Array, key: jax.Array) -> tuple[Any, Any]:
    """The outputs in training: batch norm uses the statistics of these images.

    Args:
      params, batch_stats: as in `TrainState`.
      images: uint8 (n, h, w, 3), one statistics group.
      key: a JAX key, for dropout.

    Returns:
      (outputs, updated batch_stats).
    """
    outputs, updated = self.model.apply(
      {"params": params, "batch_stats": batch_stats},
      normalize(images, self.mean, self.std),
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    return outputs, updated.get("batch_stats", {})


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
  """uint8 (n, h, w, 3) -> float32 of about zero mean and unit variance; mean and std on the 0-255 scale."""
  shape = (1, 1, 1, -1)  # (c,) -> (1, 1, 1, c)
  return (images.astype(jnp.float32) - jnp.asarray(mean).reshape(shape)) / jnp.asarray(std).reshape(shape)
