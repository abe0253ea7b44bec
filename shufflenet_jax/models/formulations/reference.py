"""The paper, line for line: the unit of Fig. 2 and the stem of Table 1. The oracle for the other formulations."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models import layers
from shufflenet_jax.models.batch_norm import Moments, Norm
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.formulations.interface import PerLayer
from shufflenet_jax.models.layers import conv


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
  """A ShuffleNet unit (section 3.2): Fig. 2b with stride 1, Fig. 2c with stride 2.

  Args:
    kernels: HWIO, float32: compress (1, 1, c_in / compress_groups, m), depthwise (3, 3, 1, m),
      expand (1, 1, m / groups, c_branch), where m is the width of the bottleneck.
    norms: a `Norm` after each convolution.
    x: (n, h, w, c_in), not negative; convolutions are computed in its dtype, norms in float32.
    stride: 1 or 2.
    compress_groups: groups of the first 1x1 convolution.
    groups: groups of the second.
    shuffle_groups: the argument of `channel_shuffle`; 1 leaves the channels in their order.
    shortcut_first: with stride 2, whether the pooled input precedes the branch in the output.

  Returns:
    (n, h, w, c_branch) with stride 1, (n, ceil(h/2), ceil(w/2), c_in + c_branch) with stride 2, in x's dtype; and for
    each layer the `Moments` of the batch that its norm has used, or None in evaluation.
  """
  y = channel_shuffle(conv(x, kernels.compress, groups=compress_groups), shuffle_groups)
  # Fig. 2 shuffles after the norm and ReLU. These act on each channel alone, so the result is the same.
  y, compress_moments = norms.compress(y)
  y = depthwise_conv3x3(layers.relu(y), kernels.depthwise, stride)
  y, depthwise_moments = norms.depthwise(y)  # no ReLU here (section 3.2)
  y = conv(y, kernels.expand, groups=groups)
  y, expand_moments = norms.expand(y)
  if stride == 1:
    y = x + y
  else:
    y = jnp.concatenate([avg_pool3x3(x), y] if shortcut_first else [y, avg_pool3x3(x)], axis=-1)
  # Fig. 2c applies ReLU before the concatenation. The shortcut is not negative, so the result is the same.
  return layers.relu(y), PerLayer(compress_moments, depthwise_moments, expand_moments)


def stem(kernel: jax.Array, norm: Norm, images: jax.Array) -> tuple[jax.Array, Moments | None]:
  """Conv1 and MaxPool of Table 1.

  Args:
    kernel: HWIO (3, 3, 3, f), float32.
    norm: the batch norm between the convolution and ReLU.
    images: (n, h, w, 3), in the dtype to compute in.

  Returns:
    (n, ceil(h/4), ceil(w/4), f), and the batch's statistics, which the norm has used, or None in evaluation.
  """
  x, batch = norm(conv(images, kernel, stride=2))
  return max_pool3x3(layers.relu(x)), batch


def conv_norm_relu(
  kernel: jax.Array, norm: Norm, x: jax.Array, *, stride: int, groups: int, relu: bool
) -> tuple[jax.Array, Moments | None]:
  """A convolution with the norm and, if `relu`, the ReLU after it, as other networks have them.

  Args:
    kernel: HWIO (k, k, c / groups, f) with k odd, float32.
    norm: of the f channels.
    x: (n, h, w, c); the convolution is computed in its dtype, the norm in float32.
    stride: s.
    groups: of the convolution; with c groups it is depthwise.
    relu: whether there is a ReLU.

  Returns:
    (n, ceil(h/s), ceil(w/s), f) in x's dtype, and the batch's statistics, or None in evaluation.
  """
  y, batch = norm(conv(x, kernel, stride, groups))
  return layers.relu(y) if relu else y, batch


def add_relu(x: jax.Array, y: jax.Array) -> jax.Array:
  """The end of a residual unit: relu(x + y), (n, h, w, c)."""
  return layers.relu(x + y)


def depthwise_conv3x3(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """3x3 depthwise convolution: (n, h, w, c) and HWIO (3, 3, 1, c) -> (n, ceil(h/s), ceil(w/s), c)."""
  return conv(x, kernel, stride, groups=x.shape[-1])


def avg_pool3x3(x: jax.Array) -> jax.Array:
  """Average pool of stride 2 that counts its padding of 1 as zeros: (n, h, w, c) -> (n, ceil(h/2), ceil(w/2), c)."""
  return nn.pool(x, 0.0, jax.lax.add, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))) / 9


def max_pool3x3(x: jax.Array) -> jax.Array:
  """Max pool of stride 2, padding 1: (n, h, w, c) -> (n, ceil(h/2), ceil(w/2), c)."""
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
