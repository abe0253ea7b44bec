"""Batch norm as the affine map that it is, so that it can be folded into a convolution that it follows or precedes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.lowering import dispatch, group_conv1x1


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and variance of each channel: (n, h, w, c) of any float dtype -> float32 (c,), (c,)."""
  x = x.astype(jnp.float32)
  mean = x.mean((0, 1, 2))
  return mean, jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(mean), 0)


@jax.custom_jvp
def _gram(x):
  """(..., c) -> float32 (c, c): the sums of products of any two channels."""
  return jnp.einsum("...i,...j->ij", x, x, preferred_element_type=jnp.float32, precision="highest")


@_gram.defjvp
def _gram_jvp(primals, tangents):
  # As a product of two factors its transpose would be two convolutions; so it is one, and runs in x's dtype.
  (x,), (dx,) = primals, tangents
  half = jnp.einsum("...i,...j->ij", dx, x, precision="highest").astype(jnp.float32)
  return _gram(x), half + half.T


def _blocks_of_gram(x, groups):
  c = x.shape[-1]
  # The blocks on the diagonal: (c, c) -> (g, c/g, g, c/g) -> (g, c/g, c/g)
  return jnp.einsum("gigj->gij", _gram(x).reshape(groups, c // groups, groups, c // groups))


def _gram_of_each_group(x, groups):
  parts = jnp.split(x, groups, -1)
  return jnp.stack([_gram(p.reshape(-1, p.shape[-1])) for p in parts])  # (n, h, w, c/g) -> (n*h*w, c/g)


_GROUP_GRAMS = {"reference": _blocks_of_gram, "dense": _blocks_of_gram, "split": _gram_of_each_group}


def group_moments(x: jax.Array, groups: int, lowering: str = "auto") -> tuple[jax.Array, jax.Array]:
  """Mean of each channel, and covariance of the channels of each group.

  Args:
    x: (n, h, w, c), any float dtype.
    groups: g, must divide c.
    lowering: see `models/lowering.py`.

  Returns:
    float32 (g, c/g) and (g, c/g, c/g).
  """
  n, h, w, c = x.shape
  mean = x.astype(jnp.float32).mean((0, 1, 2)).reshape(groups, c // groups)  # (c,) -> (g, c/g)
  product = dispatch(_GROUP_GRAMS, lowering, x, groups=groups)
  return mean, product / (n * h * w) - mean[:, :, None] * mean[:, None, :]


class BatchNorm(nn.Module):
  """Batch norm: float32 parameters `scale` and `bias`, running statistics `mean` and `var`, all (features,).

  Attributes:
    features: channels.
    train: whether the batch's own statistics are used, and the running ones updated.
    momentum: how much of the running statistics a step keeps.
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

  def affine(self, mean: jax.Array | None, var: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Normalisation as `a * x + b`: (a, b), float32 (features,); mean and var: the batch's, only with `train`."""
    if self.train:
      if not self.is_initializing():
        keep = self.momentum
        self.mean.value = keep * self.mean.value + (1 - keep) * jax.lax.stop_gradient(mean)
        self.var.value = keep * self.var.value + (1 - keep) * jax.lax.stop_gradient(var)
    else:
      mean, var = self.mean.value, self.var.value
    a = jax.lax.rsqrt(var + self.epsilon) * self.scale
    return a, self.bias - mean * a

  def affine_of(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`affine` for normalising x: (n, h, w, c)."""
    return self.affine(*(moments(x) if self.train else (None, None)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises (n, h, w, c); computed in float32, returned in x's dtype."""
    a, b = self.affine_of(x)
    return (x.astype(jnp.float32) * a + b).astype(x.dtype)


def normalized_conv1x1(
  x: jax.Array, kernel: jax.Array, groups: int, before: BatchNorm, after: BatchNorm, lowering: str
) -> jax.Array:
  """`after(group_conv1x1(before(x)))` as one convolution: both norms are folded into its kernel.

  In training, the statistics that `after` needs follow from the covariance
  of x, which has fewer channels: for y = W x, mean(y) = W mean(x) and
  var(y) = diag(W cov(x) W'). So the wide output is neither written nor read
  to be normalised, and differentiation makes the backward pass of both norms
  products of small matrices as well. In bfloat16 it rounds as the three steps
  do while the channels' means are within about their deviations, and more
  beyond: 0.5 % for 0.3 % at three deviations, as x is not centred first.

  Args:
    x: (n, h, w, c_in).
    kernel: HWIO (1, 1, c_in / groups, c_out), float32.
    groups: g.
    before, after: of c_in and c_out channels.
    lowering: see `models/lowering.py`.

  Returns:
    (n, h, w, c_out), x's dtype.
  """
  mean = var = None
  if before.train:
    mean, covariance = group_moments(x, groups, lowering)
    mean, var = mean.ravel(), jnp.einsum("gii->gi", covariance).ravel()  # (g, c_in/g) -> (c_in,)
    var = jnp.maximum(var, 0)  # of a nearly constant channel, rounding leaves less
  a, b = before.affine(mean, var)

  def by_input(v):
    return v.reshape(groups, -1).T[:, :, None]  # (c_in,) -> (g, c_in/g) -> (c_in/g, g, 1)

  k = kernel.reshape(-1, groups, kernel.shape[-1] // groups)  # (1, 1, c_in/g, c_out) -> (c_in/g, g, c_out/g)
  shift = (k * by_input(b)).sum(0).ravel()  # what b becomes behind the convolution: (c_out,)
  k = k * by_input(a)
  if after.train:
    mean = (k * by_input(mean)).sum(0).ravel() + shift  # (c_in/g, g, c_out/g) -> (c_out,)
    var = jnp.einsum("gij,jgo->igo", covariance, k, precision="highest")
    var = jnp.maximum((var * k).sum(0).ravel(), 0)  # (c_in/g, g, c_out/g) -> (c_out,)
  a, b = after.affine(mean, var)
  return group_conv1x1(x, k.reshape(kernel.shape) * a, groups, lowering=lowering, bias=shift * a + b)
