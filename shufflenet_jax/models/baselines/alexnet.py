"""AlexNet (Krizhevsky et al., 2012) with two groups, as trained on two GPUs: Tables 6 and 8 of the ShuffleNet paper."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Constants of local response normalisation (section 3.3 of AlexNet's paper).
RADIUS, OFFSET, SCALE, POWER = 2, 2.0, 1e-4, 0.75


@jax.jit  # so that an export finds it as one operation
def local_response_norm(x: jax.Array) -> jax.Array:
  """x / (2 + 1e-4 * sum of squares over 5 neighbouring channels) ** 0.75 (its section 3.3): (n, h, w, c) -> same."""
  c = x.shape[-1]
  padded = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (RADIUS, RADIUS)))
  squares = sum(padded[..., i : i + c] for i in range(2 * RADIUS + 1))
  return x * (OFFSET + SCALE * squares) ** -POWER


class AlexNet(nn.Module):
  """Images (n, h, w, 3), h and w at least 63 -> logits float32 (n, num_classes).

  It has no batch norm. In training, it uses dropout.

  Attributes:
    num_classes: size of the last layer.
    dtype: compute dtype.
  """

  num_classes: int = 1000
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    def conv(x, name, features, kernel, groups=1, **options):
      layer = nn.Conv(
        features,
        (kernel, kernel),
        feature_group_count=groups,
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=name,
        **options,
      )
      return nn.relu(layer(x))

    def pool(x):
      return nn.max_pool(x, (3, 3), strides=(2, 2))

    x = conv(images.astype(self.dtype), "conv1", 96, 11, strides=4, padding=2)  # 224 -> 55
    x = pool(local_response_norm(x))
    x = pool(local_response_norm(conv(x, "conv2", 256, 5, groups=2, padding=2)))
    x = conv(x, "conv3", 384, 3, padding=1)
    x = conv(x, "conv4", 384, 3, groups=2, padding=1)
    x = pool(conv(x, "conv5", 256, 3, groups=2, padding=1))
    x = x.reshape(x.shape[0], -1)  # (n, h, w, c) -> (n, h*w*c)
    for name in ("fc6", "fc7"):
      x = nn.relu(nn.Dense(4096, dtype=self.dtype, kernel_init=nn.initializers.he_normal(), name=name)(x))
      x = nn.Dropout(0.5, deterministic=not train)(x)
    return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)
