"""The layers of the ShuffleNet unit (sections 3.1 and 3.2), as the paper writes them.

All images are NHWC. Kernels are HWIO, as `jax.lax.conv_general_dilated` has
them with `feature_group_count`; compute runs in `dtype`, parameters are float32.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
  """Mixes the channel groups (section 3.1, Fig. 1c): channel `i*n + j` goes to `j*groups + i`.

  Shuffling again with `channels // groups` groups is the inverse.

  Args:
    x: any dtype, shape (..., c); in the network (n, h, w, c).
    groups: how many groups the channels are in; must divide c.

  Returns:
    The same values, dtype and shape, channels reordered.

  Raises:
    ValueError: `groups` does not divide the channels.
  """
  *batch, c = x.shape
  if groups < 1 or c % groups:
    raise ValueError(f"channel_shuffle: {c} channels do not divide into {groups} groups")
  x = x.reshape(*batch, groups, c // groups)  # (n, h, w, c) -> (n, h, w, g, c/g)
  x = jnp.swapaxes(x, -1, -2)  # (n, h, w, g, c/g) -> (n, h, w, c/g, g)
  return x.reshape(*batch, c)  # (n, h, w, c/g, g) -> (n, h, w, c)


def _conv(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
  """Convolution of NHWC images with an HWIO kernel; padding keeps ceil(side / stride) positions, symmetrically.

  With stride 2 that differs from "SAME", which pads only below and to the
  right of an even-sized image. Symmetric is what the authors' release does.
  """
  pad = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride, stride),
    padding=((pad, pad), (pad, pad)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


class GroupConv1x1(nn.Module):
  """1x1 convolution in groups, no bias: (n, h, w, c_in) -> (n, h, w, features).

  Parameter `kernel`: float32 (1, 1, c_in / groups, features).

  Raises:
    ValueError: `groups` does not divide c_in and features.
  """

  features: int
  groups: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c_in = x.shape[-1]
    if c_in % self.groups or self.features % self.groups:
      raise ValueError(f"{self.groups} groups do not divide {c_in} input and {self.features} output channels")
    kernel = self.param("kernel", nn.initializers.he_normal(), (1, 1, c_in // self.groups, self.features))
    return _conv(x.astype(self.dtype), kernel, 1, self.groups)


class DepthwiseConv3x3(nn.Module):
  """3x3 depthwise convolution, padding 1, no bias: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), c).

  Parameter `kernel`: float32 (3, 3, 1, c).
  """

  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = x.shape[-1]
    kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, 1, c))
    return _conv(x.astype(self.dtype), kernel, self.stride, c)


class SqueezeExcite(nn.Module):
  """Squeeze-and-excitation (arXiv 1709.01507; section 4.3 of the ShuffleNet paper): (n, h, w, c) -> the same.

  Scales each channel by a gate computed from the channels' means, through a
  hidden layer of c / 16.
  """

  reduction: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = x.shape[-1]
    gate = x.mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    gate = nn.relu(nn.Dense(max(c // self.reduction, 1), dtype=self.dtype, name="reduce")(gate))
    gate = nn.sigmoid(nn.Dense(c, dtype=self.dtype, name="expand")(gate))
    return x * gate[:, None, None, :]  # (n, c) -> (n, 1, 1, c)


class ConvNormRelu(nn.Module):
  """Convolution, batch norm and perhaps ReLU: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), features).

  Attributes:
    features: output channels.
    kernel: side of the kernel, odd; padding is symmetric.
    stride: s.
    groups: of the convolution; the input's channels for a depthwise one.
    relu: whether ReLU follows.
    train: whether batch norm uses the batch's own statistics.
    dtype: compute dtype.
  """

  features: int
  kernel: int = 3
  stride: int = 1
  groups: int = 1
  relu: bool = True
  train: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.Conv(
      self.features,
      (self.kernel, self.kernel),
      strides=self.stride,
      padding=self.kernel // 2,
      feature_group_count=self.groups,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.he_normal(),
      name="conv",
    )(x)
    x = nn.BatchNorm(not self.train, momentum=0.9, dtype=self.dtype, name="norm")(x)
    return nn.relu(x) if self.relu else x
