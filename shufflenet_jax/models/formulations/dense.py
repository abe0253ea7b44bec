"""For TPUs and GPUs: ordinary convolutions, a shuffle that costs nothing, and batch norm folded into the convolutions.

- A 1x1 group convolution is an ordinary one with a block-diagonal kernel. A TPU's matrix unit is so wide (128x128 or
  more) that the zeros cost less than small convolutions would.
- Batch norm, ReLU and the depthwise convolution act on each channel alone. The shuffle can therefore be applied to the
  output channels of the preceding kernel, which has only a few kilobytes, instead of to the activations.
- `folding` merges the last 1x1 convolution and the norms before and after it into one convolution.
"""

import functools

import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import Moments, Norm, per_channel
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.formulations import folding, reference
from shufflenet_jax.models.formulations.interface import PerLayer
from shufflenet_jax.models.formulations.reference import avg_pool3x3, max_pool3x3
from shufflenet_jax.models.formulations.reference import depthwise_conv3x3 as grouped_depthwise_conv3x3
from shufflenet_jax.models.layers import conv, relu

# Up to this many channels, a depthwise convolution is computed as an ordinary one with a diagonal kernel: by the TPU
# compiler's estimates that is faster at 60 channels and slower at 96 (benchmarks/RESULTS.md).
DIAGONAL_CHANNELS = 80

# The layers of other networks are the reference's.
conv_norm_relu, add_relu = reference.conv_norm_relu, reference.add_relu


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
  y = group_conv1x1(x, kernels.compress, compress_groups, shuffle_groups)
  y, compress_moments = norms.compress(y)
  y = depthwise_conv3x3(relu(y), kernels.depthwise.astype(x.dtype), stride)
  statistics = group_statistics(y, groups) if norms.depthwise.train else None
  folded = folding.fold_norms(kernels.expand, groups, norms.depthwise, norms.expand, statistics)
  if stride == 1:
    y = x + group_conv1x1(y, folded.kernel, groups, bias=folded.bias)
  else:
    # In training, the bias is added after the concatenation. Its gradient is then a sum over all channels, which the
    # TPU compiler fuses into the pass that computes them; for a sum over a part of them it adds a pass.
    late = norms.expand.train
    y = group_conv1x1(y, folded.kernel, groups, bias=None if late else folded.bias)
    y = _concatenate(avg_pool3x3(x), y, shortcut_first)
    if late:
      y = _add_bias(y, _concatenate(jnp.zeros(x.shape[-1]), folded.bias, shortcut_first))
  return relu(y), PerLayer(compress_moments, folded.moments_before, folded.moments_after)


def _concatenate(shortcut: jax.Array, branch: jax.Array, shortcut_first: bool) -> jax.Array:
  return jnp.concatenate([shortcut, branch] if shortcut_first else [branch, shortcut], axis=-1)


def stem(kernel: jax.Array, norm: Norm, images: jax.Array) -> tuple[jax.Array, Moments | None]:
  """Conv1 and MaxPool of Table 1; see `reference.stem`."""
  return folding.stem(kernel, norm, images, conv_stride2=functools.partial(conv, stride=2), max_pool=max_pool3x3)


def group_conv1x1(
  x: jax.Array, kernel: jax.Array, groups: int, shuffle_groups: int = 1, bias: jax.Array | None = None
) -> jax.Array:
  """1x1 group convolution, then `channel_shuffle`, then a bias, which is added in float32.

  Args:
    x: (n, h, w, c_in).
    kernel: HWIO (1, 1, c_in / groups, c_out), is cast to x's dtype.
    groups: must divide c_in and c_out.
    shuffle_groups: the argument of `channel_shuffle`; 1 for none.
    bias: float32 (c_out,), in the shuffled order.

  Returns:
    (n, h, w, c_out), x's dtype.
  """
  kernel = kernel.astype(x.dtype)
  _, _, i, o = kernel.shape
  blocks = kernel.reshape(1, i, groups, o // groups)  # (1, 1, c_in/g, c_out) -> (1, c_in/g, g, c_out/g)
  own = jnp.eye(groups, dtype=kernel.dtype)[:, None, :, None]  # (g, g) -> (g, 1, g, 1)
  dense = (blocks * own).reshape(1, 1, groups * i, o)  # (g, c_in/g, g, c_out/g) -> (1, 1, c_in, c_out)
  y = conv(x, channel_shuffle(dense, shuffle_groups))
  return y if bias is None else _add_bias(y, bias)


def _add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
  return (y.astype(jnp.float32) + per_channel(bias)).astype(y.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def depthwise_conv3x3(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """3x3 depthwise convolution, computed as an ordinary one with a diagonal kernel if there are few channels.

  (n, h, w, c) and HWIO (3, 3, 1, c), of one dtype -> (n, ceil(h/s), ceil(w/s), c).
  """
  c = x.shape[-1]
  if c > DIAGONAL_CHANNELS:
    return grouped_depthwise_conv3x3(x, kernel, stride)
  diagonal = jnp.eye(c, dtype=kernel.dtype)[None, None]  # (c, c) -> (1, 1, c, c)
  return conv(x, kernel * diagonal, stride)  # (3, 3, 1, c) -> (3, 3, c, c)


@depthwise_conv3x3.defjvp
def _depthwise_conv3x3_jvp(stride, primals, tangents):
  (x, kernel), (dx, dkernel) = primals, tangents
  # The term for the kernel stays depthwise, so that its transpose gives (3, 3, 1, c), not (3, 3, c, c).
  from_kernel = grouped_depthwise_conv3x3(x, dkernel, stride)
  return depthwise_conv3x3(x, kernel, stride), depthwise_conv3x3(dx, kernel, stride) + from_kernel


def group_statistics(x: jax.Array, groups: int) -> folding.GroupStatistics:
  """`folding.group_statistics` of (n, h, w, c)."""
  n, h, w, c = x.shape
  # One product for all channels, then the blocks on its diagonal: (c, c) -> (g, c/g, g, c/g) -> (g, c/g, c/g)
  products = folding.grams(x, "...i,...j->ij").reshape(groups, c // groups, groups, c // groups)
  mean = x.astype(jnp.float32).mean((0, 1, 2))
  return folding.group_statistics(mean, jnp.einsum("gigj->gij", products), n * h * w)
