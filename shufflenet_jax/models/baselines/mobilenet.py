"""MobileNet V1 (arXiv 1704.04861, Table 1), with which Table 5 of the ShuffleNet paper compares ShuffleNet."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.conv_norm_relu import ConvNormRelu
from shufflenet_jax.models.layers import stages_between

# (output channels, stride) of each depthwise-separable block at 1.0.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# Name of a map in `features` -> its stride with respect to the images.
STRIDES = {"stage2": 8, "stage3": 16, "stage4": 32}


class MobileNetV1(nn.Module):
  """Images (n, h, w, 3) -> logits float32 (n, num_classes).

  Attributes:
    scale: width multiplier on every layer: 1.0, 0.75, 0.5 or 0.25 in the papers.
    num_classes: size of the last layer.
    lowering: the formulation, one of `formulations.choose.LOWERINGS`.
    dtype: compute dtype.
  """

  scale: float = 1.0
  num_classes: int = 1000
  lowering: str = "auto"
  dtype: Any = jnp.float32

  def setup(self):
    self.classifier = nn.Dense(self.num_classes, dtype=self.dtype)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Logits; with `train`, batch norm uses the batch's own statistics, and `batch_stats` must be mutable."""
    return self.classify(self.features(images, train))

  @nn.compact
  def features(
    self, images: jax.Array, train: bool = False, *, after: str | None = None, until: str = "stage4"
  ) -> dict[str, jax.Array]:
    """Maps by ShuffleNet's names: "stage2", "stage3", "stage4" -> (n, h, w, c), of strides 8, 16 and 32.

    See `ShuffleNetV1.features` for the arguments.

    Raises:
      ValueError: an unknown stage.
    """
    computed = stages_between(tuple(STRIDES), after, until)
    conv = functools.partial(ConvNormRelu, train=train, lowering=self.lowering, dtype=self.dtype)
    x, total_stride = images.astype(self.dtype), 2
    if after is None:
      x = conv(int(32 * self.scale), stride=2, name="stem")(x)
    maps = {}
    for i, (features, stride) in enumerate(BLOCKS, start=1):
      total_stride *= stride
      # Blocks of stride 2 and 4 with respect to the images belong to the first stage.
      stage = next(name for name, stage_stride in STRIDES.items() if total_stride <= stage_stride)
      if stage not in computed:
        continue
      x = conv(x.shape[-1], stride=stride, groups=x.shape[-1], name=f"depthwise{i}")(x)
      x = conv(int(features * self.scale), kernel=1, name=f"pointwise{i}")(x)
      maps[stage] = x  # the last block of a stage replaces those before it
    return maps

  def classify(self, features: dict[str, jax.Array]) -> jax.Array:
    """Global pool and last layer: the maps of `features` -> logits float32 (n, num_classes)."""
    pooled = features["stage4"].mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    return self.classifier(pooled).astype(jnp.float32)
