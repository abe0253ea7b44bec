"""VGG-16 (arXiv 1409.1556, configuration D), a network in Table 6 of the ShuffleNet paper."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Channels of the 3x3 convolutions of each block; a 2x2 max pool follows each block.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
  """Images (n, h, w, 3), h and w at least 32 -> logits float32 (n, num_classes).

  It has no batch norm. In training, it uses dropout.

  Attributes:
    num_classes: size of the last layer.
    dtype: compute dtype.
  """

  num_classes: int = 1000
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    he_normal = nn.initializers.he_normal()
    x = images.astype(self.dtype)
    for block, channels in enumerate(BLOCKS, start=1):
      for i, features in enumerate(channels, start=1):
        conv = nn.Conv(
          features,
          (3, 3),
          padding=1,
          dtype=self.dtype,
          kernel_init=he_normal,
          name=f"conv{block}_{i}",
        )
        x = nn.relu(conv(x))
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    x = x.reshape(x.shape[0], -1)  # (n, h, w, c) -> (n, h*w*c)
    for name in ("fc6", "fc7"):
      x = nn.relu(nn.Dense(4096, dtype=self.dtype, kernel_init=he_normal, name=name)(x))
      x = nn.Dropout(0.5, deterministic=not train)(x)
    return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)
