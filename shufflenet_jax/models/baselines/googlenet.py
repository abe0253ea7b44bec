"""GoogLeNet (arXiv 1409.4842, Table 1) without its auxiliary classifiers, in Table 6 of the ShuffleNet paper.

A batch norm follows each convolution (as in arXiv 1502.03167), in place of local response normalisation, so that the
network trains with the same recipe as the others.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.conv_norm_relu import ConvNormRelu

# name: channels of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
INCEPTIONS = {
  "3a": (64, 96, 128, 16, 32, 32),
  "3b": (128, 128, 192, 32, 96, 64),
  "4a": (192, 96, 208, 16, 48, 64),
  "4b": (160, 112, 224, 24, 64, 64),
  "4c": (128, 128, 256, 24, 64, 64),
  "4d": (112, 144, 288, 32, 64, 64),
  "4e": (256, 160, 320, 32, 128, 128),
  "5a": (256, 160, 320, 32, 128, 128),
  "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
  """Images (n, h, w, 3) -> logits float32 (n, num_classes); dropout in training.

  Attributes:
    num_classes: size of the last layer.
    dtype: compute dtype.
  """

  num_classes: int = 1000
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    # Its branches are concatenated as pictures, so another order of the axes would be changed back there.
    conv = functools.partial(ConvNormRelu, train=train, lowering="reference", dtype=self.dtype)

    def pool(x, stride=2):
      return nn.max_pool(x, (3, 3), strides=(stride, stride), padding=((1, 1), (1, 1)))

    x = pool(conv(64, 7, stride=2, name="conv1")(images.astype(self.dtype)))
    x = conv(64, 1, name="conv2_reduce")(x)
    x = pool(conv(192, 3, name="conv2")(x))
    for name, (one, three_in, three, five_in, five, projected) in INCEPTIONS.items():
      if name in ("4a", "5a"):
        x = pool(x)
      branches = (
        conv(one, 1, name=f"inception{name}_1x1")(x),
        conv(three, 3, name=f"inception{name}_3x3")(conv(three_in, 1, name=f"inception{name}_3x3_reduce")(x)),
        conv(five, 5, name=f"inception{name}_5x5")(conv(five_in, 1, name=f"inception{name}_5x5_reduce")(x)),
        conv(projected, 1, name=f"inception{name}_pool")(pool(x, 1)),
      )
      x = jnp.concatenate(branches, axis=-1)
    x = nn.Dropout(0.4, deterministic=not train)(x.mean(axis=(1, 2)))  # (n, h, w, c) -> (n, c)
    return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)
