"""SqueezeNet 1.0 (arXiv 1602.07360, Table 1), a network in Table 6 of the ShuffleNet paper."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# (squeeze, expand) channels of fire2 ... fire9; a max pool follows conv1, fire4 and fire8.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class SqueezeNet(nn.Module):
  """Images (n, h, w, 3), h and w at least 32 -> logits float32 (n, num_classes).

  It has no batch norm. In training, it uses dropout.

  Attributes:
    num_classes: channels of the last convolution, averaged over positions.
    dtype: compute dtype.
  """

  num_classes: int = 1000
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    conv = functools.partial(nn.Conv, dtype=self.dtype, kernel_init=nn.initializers.he_normal())

    def pool(x):  # rounds the size up, as the original does: the last window may reach beyond the image
      return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((0, (x.shape[1] + 1) % 2), (0, (x.shape[2] + 1) % 2)))

    x = nn.relu(conv(96, (7, 7), strides=2, padding=2, name="conv1")(images.astype(self.dtype)))  # 224 -> 111
    x = pool(x)
    for i, (squeeze, expand) in enumerate(FIRES, start=2):
      x = nn.relu(conv(squeeze, (1, 1), name=f"fire{i}_squeeze")(x))
      sides = (
        conv(expand, (1, 1), name=f"fire{i}_expand1x1")(x),
        conv(expand, (3, 3), padding=1, name=f"fire{i}_expand3x3")(x),
      )
      x = nn.relu(jnp.concatenate(sides, axis=-1))
      if i in (4, 8):
        x = pool(x)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    x = nn.relu(conv(self.num_classes, (1, 1), kernel_init=nn.initializers.normal(0.01), name="classifier")(x))
    return x.mean(axis=(1, 2)).astype(jnp.float32)  # (n, h, w, c) -> (n, c)
