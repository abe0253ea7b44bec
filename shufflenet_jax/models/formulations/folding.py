"""Batch norm folded into the convolutions around it: the algebra that `dense` and `planes` share.

Both move work from activations to kernels, which are thousands of times smaller. The network still computes the same
function.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import Moments, Norm, moments, per_channel
from shufflenet_jax.models.layers import relu


class GroupStatistics(NamedTuple):
  """Statistics of images whose channels are in g groups.

  Attributes:
    mean: of each channel, float32 (g, c/g).
    covariance: of the channels of each group, float32 (g, c/g, c/g).
  """

  mean: jax.Array
  covariance: jax.Array


class FoldedConv(NamedTuple):
  """A 1x1 group convolution that includes the norms on both sides of it.

  Attributes:
    kernel: HWIO (1, 1, c_in/g, c_out), float32.
    bias: float32 (c_out,).
    moments_before: the batch's statistics of the convolution's input, or None in evaluation.
    moments_after: the same of its output.
  """

  kernel: jax.Array
  bias: jax.Array
  moments_before: Moments | None
  moments_after: Moments | None


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def grams(x: jax.Array, axes: str) -> jax.Array:
  """For any two channels of a group, the sum of their products: float32 (..., c/g, c/g).

  Args:
    x: images in any order of their axes.
    axes: of x and of the result, in the notation of einsum: i and j are the channels of a group, as in "gip,gjp->gij".
  """
  return jnp.einsum(axes, x, x, preferred_element_type=jnp.float32, precision="highest")


@grams.defjvp
def _grams_jvp(axes, primals, tangents):
  # The two terms of the product rule are transposes of each other, so one product gives both. The gradient for x, which
  # JAX derives from this rule, then takes one product as well instead of two, in x's dtype.
  (x,), (dx,) = primals, tangents
  half = jnp.einsum(axes, dx, x, precision="highest").astype(jnp.float32)
  return grams(x, axes), half + half.swapaxes(-1, -2)


def group_statistics(mean: jax.Array, products: jax.Array, count: int) -> GroupStatistics:
  """Mean of each channel, and covariance of the channels of each group.

  Args:
    mean: of each channel, float32 (c,).
    products: `grams` of the groups, (g, c/g, c/g).
    count: the number of positions that they are sums over, n*h*w.
  """
  mean = mean.reshape(products.shape[:2])  # (c,) -> (g, c/g)
  return GroupStatistics(mean, products / count - mean[:, :, None] * mean[:, None, :])


def fold_norms(
  kernel: jax.Array, groups: int, before: Norm, after: Norm, statistics: GroupStatistics | None
) -> FoldedConv:
  """The one convolution that equals `after(conv1x1(before(x)))`.

  In training, the statistics that `after` needs follow from the covariance
  of x, which has fewer channels: for y = W x, mean(y) = W mean(x) and
  var(y) = diag(W cov(x) W'). Thus no extra pass over the wide output is
  needed to normalise it, and the backward pass of both norms consists of
  products of small matrices as well.

  In bfloat16 the rounding error is that of the three separate steps as long
  as the means of the channels are within about one standard deviation of
  zero. Further away it is larger, because x is not centred first: at three
  standard deviations it is 0.5 %, compared with 0.3 % for the three steps.

  Args:
    kernel: HWIO (1, 1, c_in / groups, c_out), float32.
    groups: g.
    before: the norm of the c_in channels of x.
    after: the norm of the c_out channels of the convolution's output.
    statistics: of x; None in evaluation.
  """
  moments_before = moments_after = None
  if before.train:
    mean, covariance = statistics
    # Rounding can leave the variance of a nearly constant channel below zero.
    var = jnp.maximum(jnp.einsum("gii->gi", covariance).ravel(), 0)  # (g, c_in/g) -> (c_in,)
    moments_before = Moments(mean.ravel(), var)  # (g, c_in/g) -> (c_in,)
  a, b = before.affine(moments_before)

  def by_input(v):
    return v.reshape(groups, -1).T[:, :, None]  # (c_in,) -> (g, c_in/g) -> (c_in/g, g, 1)

  k = kernel.reshape(-1, groups, kernel.shape[-1] // groups)  # (1, 1, c_in/g, c_out) -> (c_in/g, g, c_out/g)
  shift = (k * by_input(b)).sum(0).ravel()  # the convolution of b: (g, c_out/g) -> (c_out,)
  k = k * by_input(a)
  if after.train:
    mean = (k * by_input(moments_before.mean)).sum(0).ravel() + shift  # (c_in/g, g, c_out/g) -> (c_out,)
    var = jnp.einsum("gij,jgo->igo", covariance, k, precision="highest")
    var = jnp.maximum((var * k).sum(0).ravel(), 0)  # (c_in/g, g, c_out/g) -> (c_out,)
    moments_after = Moments(mean, var)
  a, b = after.affine(moments_after)
  # (c_in/g, g, c_out/g) -> (1, 1, c_in/g, c_out)
  return FoldedConv(k.reshape(kernel.shape) * per_channel(a), shift * a + b, moments_before, moments_after)


def stem(
  kernel: jax.Array,
  norm: Norm,
  images: jax.Array,
  *,
  conv_stride2: Callable,
  max_pool: Callable,
  moments: Callable = moments,
  for_images: Callable = per_channel,
) -> tuple[jax.Array, Moments | None]:
  """Conv1 and MaxPool of Table 1 with the pool before the norm and ReLU, which leaves them a quarter of the positions.

  In channels with a positive scale, norm and ReLU are increasing functions, so they commute with the maximum. In
  channels with a negative scale, the signs of both the kernel and the scale are flipped.

  Args:
    kernel, norm: see `reference.stem`.
    images: with the axes in the order that the functions below take; the result has the same order.
    conv_stride2: (images, kernel) -> 3x3 convolution of stride 2, padding 1.
    max_pool: 3x3 max pool of stride 2, padding 1.
    moments, for_images: `batch_norm.moments` and `batch_norm.per_channel`, or the same for another order of the axes.
  """
  sign = jnp.where(norm.scale < 0, -1.0, 1.0)
  x = conv_stride2(images, (kernel * per_channel(sign)).astype(images.dtype))
  batch = moments(x) if norm.train else None
  if batch is not None:
    batch = Moments(batch.mean * sign, batch.var)
  a, b = norm.affine(batch)
  return relu(max_pool(x).astype(jnp.float32) * for_images(a * sign) + for_images(b)).astype(images.dtype), batch
