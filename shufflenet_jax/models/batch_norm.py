"""Batch norm, written as an affine map `a * x + b`, so that a formulation can fold it into a convolution.

`BatchNorm` is the Flax module that declares the parameters and owns the running statistics. It hands them out as a
`Norm`, a plain value that pure functions compute with; these return the batch's statistics, and `BatchNorm.update`
moves the running ones towards them.
"""

from typing import NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp


class Moments(NamedTuple):
  """Mean and variance of each channel, float32 (c,)."""

  mean: jax.Array
  var: jax.Array


def moments(x: jax.Array) -> Moments:
  """The mean and variance of each channel of (n, h, w, c), any float dtype, computed in float32."""
  x = x.astype(jnp.float32)
  mean = x.mean((0, 1, 2))
  return Moments(mean, jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(mean), 0))


def per_channel(values: jax.Array) -> jax.Array:
  """(c,) -> (1, 1, 1, c), to be combined with images."""
  return jnp.expand_dims(values, (0, 1, 2))


@flax.struct.dataclass
class Norm:
  """A batch norm as a value: its parameters and running statistics.

  Attributes:
    scale: float32 (c,).
    bias: float32 (c,).
    running: the running statistics, by which evaluation normalises.
    epsilon: added to the variance.
    train: whether to normalise by the batch's statistics instead of the running ones.
  """

  scale: jax.Array
  bias: jax.Array
  running: Moments
  epsilon: float = flax.struct.field(pytree_node=False)
  train: bool = flax.struct.field(pytree_node=False)

  def affine(self, batch: Moments | None) -> tuple[jax.Array, jax.Array]:
    """The norm as `a * x + b`: float32 (c,) each; `batch` is the batch's statistics if `train`, else ignored."""
    mean, var = batch if self.train else self.running
    a = jax.lax.rsqrt(var + self.epsilon) * self.scale
    return a, self.bias - mean * a

  def __call__(self, x: jax.Array) -> tuple[jax.Array, Moments | None]:
    """Normalises (n, h, w, c) in float32: the result in x's dtype, and the batch's statistics if `train`."""
    batch = moments(x) if self.train else None
    a, b = map(per_channel, self.affine(batch))
    return (x.astype(jnp.float32) * a + b).astype(x.dtype), batch


class BatchNorm(nn.Module):
  """Batch norm: float32 parameters `scale` and `bias`, running statistics `mean` and `var`, all (features,).

  Attributes:
    features: channels.
    train: whether the batch's own statistics are used, and the running ones updated.
    momentum: the share of the running statistics that survives one step.
    epsilon: added to the variance.
  """

  features: int
  train: bool = False
  momentum: float = 0.9
  epsilon: float = 1e-5

  def setup(self):
    shape = (self.features,)
    self.scale = self.param("scale", nn.initializers.ones, shape)
    self.bias = self.param("bias", nn.initializers.zeros, shape)
    self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    self.var = self.variable("batch_stats", "var", jnp.ones, shape)

  def value(self) -> Norm:
    """The parameters and running statistics, for pure functions."""
    running = Moments(self.mean.value, self.var.value)
    return Norm(scale=self.scale, bias=self.bias, running=running, epsilon=self.epsilon, train=self.train)

  def update(self, batch: Moments | None) -> None:
    """Moves the running statistics towards the batch's; does nothing in evaluation and while initialising."""
    if self.train and not self.is_initializing():
      keep = self.momentum
      self.mean.value = keep * self.mean.value + (1 - keep) * jax.lax.stop_gradient(batch.mean)
      self.var.value = keep * self.var.value + (1 - keep) * jax.lax.stop_gradient(batch.var)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises (n, h, w, c); computed in float32, returned in x's dtype."""
    y, batch = self.value()(x)
    self.update(batch)
    return y
