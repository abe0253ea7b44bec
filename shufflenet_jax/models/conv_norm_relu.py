"""The layer that MobileNet, GoogLeNet and most networks of Table 4 consist of."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import BatchNorm
from shufflenet_jax.models.formulations import choose
from shufflenet_jax.models.layers import Kernel


class ConvNormRelu(nn.Module):
  """Convolution, batch norm and optionally ReLU: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), features).

  It declares the parameters; `models/formulations` computes with them.

  Attributes:
    features: output channels.
    kernel: side of the kernel, an odd number; padding is symmetric.
    stride: 1 or 2.
    groups: channel groups of the convolution; with as many groups as input channels it is depthwise.
    relu: whether ReLU follows.
    train: whether batch norm uses the batch's own statistics, and updates the running ones.
    lowering: the formulation, one of `formulations.choose.LOWERINGS`.
    dtype: compute dtype.
  """

  features: int
  kernel: int = 3
  stride: int = 1
  groups: int = 1
  relu: bool = True
  train: bool = False
  lowering: str = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    norm = BatchNorm(self.features, train=self.train, name="norm")
    y, batch = choose.conv_norm_relu(
      self.lowering,
      Kernel((self.kernel, self.kernel, x.shape[-1] // self.groups, self.features), name="conv")(),
      norm.value(),
      x.astype(self.dtype),
      stride=self.stride,
      groups=self.groups,
      relu=self.relu,
    )
    norm.update(batch)
    return y
