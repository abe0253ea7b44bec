"""For CPUs: images as (c, h, w, n), a plane for each channel, in which the pictures of a batch lie side by side.

XLA:CPU is slow at grouped convolutions and at the gradients of pools. Matrix products and shifted slices replace both,
and this order of the axes makes them fast:

- A group's channels are neighbouring planes, so that all groups are one batched matrix product, and no group has to be
  copied out of the others or back between them.
- The shuffle changes the order of whole planes, which happens where the depthwise convolution reads them.
- Shifted slices of planes (`windows3x3`) are read along the pictures. With many of them, that fills vector registers
  however small the maps and however few the channels.
- `folding` merges the last 1x1 convolution and the norms before and after it into one convolution.

Units and layers take and return (n, h, w, c); XLA removes the transpositions between one and the next. Some gradients
are written by hand (`jax.custom_vjp`), so forward-mode differentiation is not possible.
"""

import functools

import jax
import jax.numpy as jnp

from shufflenet_jax.models import layers
from shufflenet_jax.models.batch_norm import Moments, Norm
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.formulations import channels, folding, windows3x3
from shufflenet_jax.models.formulations.channels import group_conv1x1, per_plane
from shufflenet_jax.models.formulations.interface import PerLayer
from shufflenet_jax.models.formulations.unfused import unfused


def unit(
  kernels: PerLayer,
  norms: PerLayer,
  x: jax.Array,
  *,
  stride: int,
  compress_groups: int,
  groups: int,
  shuffle_groups: int,
  shortcut_first: bool,
) -> tuple[jax.Array, PerLayer]:
  """The unit of Fig. 2; see `reference.unit`."""
  x = _planes(x)
  y = group_conv1x1(x, kernels.compress, compress_groups)
  compress_moments = None
  if norms.compress.train:
    compress_moments = Moments(*[channel_shuffle(values, shuffle_groups) for values in channels.moments(y)])
  a, b = norms.compress.affine(compress_moments)
  depthwise = kernels.depthwise.astype(x.dtype)
  y = windows3x3.shuffle_affine_relu_depthwise_conv(y, a, b, depthwise, stride, shuffle_groups)
  statistics = channels.group_statistics(y, groups) if norms.depthwise.train else None
  folded = folding.fold_norms(kernels.expand, groups, norms.depthwise, norms.expand, statistics)
  y = group_conv1x1(y, folded.kernel, groups)
  y = (y.astype(jnp.float32) + per_plane(folded.bias)).astype(y.dtype)
  if stride == 1:
    y = x + y
  else:
    pooled = windows3x3.avg_pool(x)
    y = jnp.concatenate([pooled, y] if shortcut_first else [y, pooled], axis=0)
  return _pictures(_relu(y)), PerLayer(compress_moments, folded.moments_before, folded.moments_after)


def stem(kernel: jax.Array, norm: Norm, images: jax.Array) -> tuple[jax.Array, Moments | None]:
  """Conv1 and MaxPool of Table 1; see `reference.stem`."""
  # Unfused: the pictures are transposed once, and not again wherever their planes are read.
  x, batch = folding.stem(
    kernel,
    norm,
    unfused(_planes, images),
    conv_stride2=functools.partial(windows3x3.conv, stride=2),
    max_pool=windows3x3.max_pool,
    moments=channels.moments,
    for_images=per_plane,
  )
  return _pictures(x), batch


def conv_norm_relu(
  kernel: jax.Array, norm: Norm, x: jax.Array, *, stride: int, groups: int, relu: bool
) -> tuple[jax.Array, Moments | None]:
  """See `reference.conv_norm_relu`."""
  y = _conv(_planes(x), kernel.astype(x.dtype), stride, groups)
  batch = channels.moments(y) if norm.train else None
  a, b = norm.affine(batch)
  y = (y.astype(jnp.float32) * per_plane(a) + per_plane(b)).astype(y.dtype)
  return _pictures(_relu(y) if relu else y), batch


def _conv(x, kernel, stride, groups):
  """A convolution of (c, h, w, n) with an HWIO kernel of x's dtype, padded so that every position is a centre."""
  if kernel.shape[0] == 1:
    return group_conv1x1(x[:, ::stride, ::stride], kernel, groups)
  if kernel.shape[0] != 3:
    return _planes(layers.conv(_pictures(x), kernel, stride, groups))
  if kernel.shape[2:] == (1, groups):
    return windows3x3.depthwise_conv(x, kernel, stride)
  return windows3x3.conv(x, kernel, stride, groups)


def add_relu(x: jax.Array, y: jax.Array) -> jax.Array:
  """See `reference.add_relu`."""
  return _pictures(_relu(_planes(x) + _planes(y)))


def max_pool3x3(x: jax.Array) -> jax.Array:
  """See `reference.max_pool3x3`."""
  return _pictures(windows3x3.max_pool(_planes(x)))


def _planes(x):
  return x.transpose(3, 1, 2, 0)  # (n, h, w, c) -> (c, h, w, n)


def _pictures(x):
  return x.transpose(3, 1, 2, 0)  # (c, h, w, n) -> (n, h, w, c)


@jax.custom_vjp
def _relu(x):
  """ReLU whose result is written once: XLA would otherwise let each of its readers recompute the sum in it.

  That is the effect of `unfused`. It has to be given a function: here the barrier, which serves only as an identity.
  """
  return unfused(jax.lax.optimization_barrier, jax.lax.max(x, jnp.zeros_like(x)))


# The mask comes from the output, which is in memory. To take it from the input, XLA would compute that once more.
_relu.defvjp(lambda x: (_relu(x),) * 2, lambda y, dy: (jax.lax.select(y > 0, dy, jnp.zeros_like(dy)),))
