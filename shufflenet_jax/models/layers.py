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


class GroupConv1x1(nn.Conv):
  """1x1 convolution in `feature_group_count` groups, no bias: (n, h, w, c_in) -> (n, h, w, features).

  Kernel: float32 (1, 1, c_in / groups, features).
  """

  kernel_size: Any = (1, 1)
  use_bias: bool = False
  kernel_init: Any = nn.initializers.he_normal()


class DepthwiseConv3x3(nn.Module):
  """3x3 depthwise convolution, padding 1, no bias: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), c).

  Padding is symmetric, as in the authors' release; with stride 2 this differs
  from "SAME", which pads only below and to the right of an even-sized image.
  Kernel: float32 (3, 3, 1, c).
  """

  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = x.shape[-1]
    return nn.Conv(
      c,
      (3, 3),
      strides=self.stride,
      padding=1,
      feature_group_count=c,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.he_normal(),
      name="conv",
    )(x)
