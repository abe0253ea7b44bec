"""Statistics of channels and products over channels, of images (c, h, w, n); see `planes`."""

import math

import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import Moments
from shufflenet_jax.models.formulations import folding


def per_plane(values: jax.Array) -> jax.Array:
  """(c,) -> (c, 1, 1, 1), to be combined with images (c, h, w, n)."""
  return jnp.expand_dims(values, (1, 2, 3))


def plane_sums(x: jax.Array) -> jax.Array:
  """(c, h, w, n) -> float32 (c,): rows and columns first, because XLA:CPU can do that for many pictures at once."""
  return x.astype(jnp.float32).sum((1, 2)).sum(-1)


def moments(x: jax.Array) -> Moments:
  """`batch_norm.moments` of (c, h, w, n)."""
  x, count = x.astype(jnp.float32), math.prod(x.shape[1:])
  mean = plane_sums(x) / count
  return Moments(mean, jnp.maximum(plane_sums(jnp.square(x)) / count - jnp.square(mean), 0))


def group_statistics(x: jax.Array, groups: int) -> folding.GroupStatistics:
  """`folding.group_statistics` of (c, h, w, n)."""
  count = math.prod(x.shape[1:])
  products = folding.grams(by_group(x, groups), "gip,gjp->gij")
  return folding.group_statistics(plane_sums(x) / count, products, count)


def group_conv1x1(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
  """1x1 group convolution.

  Args:
    x: (c_in, h, w, n).
    kernel: HWIO (1, 1, c_in / groups, c_out), is cast to x's dtype.
    groups: g, must divide c_in and c_out.

  Returns:
    (c_out, h, w, n), x's dtype.
  """
  if groups == 1:
    return product(kernel.astype(x.dtype)[0, 0], x)
  # (1, 1, c_in/g, c_out) -> (c_in/g, g, c_out/g)
  kernels = kernel.astype(x.dtype).reshape(-1, groups, kernel.shape[-1] // groups)
  y = jnp.einsum("igo,gip->gop", kernels, by_group(x, groups))
  return y.reshape(kernel.shape[-1], *x.shape[1:])  # (g, c_out/g, h*w*n) -> (c_out, h, w, n)


def by_group(x: jax.Array, groups: int) -> jax.Array:
  """(c, h, w, n) -> (g, c/g, h*w*n)."""
  return x.reshape(groups, x.shape[0] // groups, math.prod(x.shape[1:]))


def product(kernel: jax.Array, x: jax.Array) -> jax.Array:
  """The matrix product over channels: (c, f) and images (c, h, w, n) -> (f, h, w, n).

  In two dimensions, because XLA:CPU transposes images for the gradients of a product with more.
  """
  c, *positions = x.shape
  y = kernel.T @ x.reshape(c, math.prod(positions))  # (c, h, w, n) -> (c, h*w*n)
  return y.reshape(kernel.shape[-1], *positions)  # (f, h*w*n) -> (f, h, w, n)
