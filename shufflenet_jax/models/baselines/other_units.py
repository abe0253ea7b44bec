"""Table 4's networks: other units in Stages 2-4 of the same frame, widths solved for a budget of multiply-adds.

The frame is Table 1's: stem 3x3/2, 3x3/2 max pool, stages of 4, 8 and 4 units
whose channels double from stage to stage, global average pool, last layer.
The stem has 24 channels for 140 MFLOPs and 12 below, as ShuffleNet's own.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.layers import ConvNormRelu

UNITS = ("vgg_like", "resnet", "xception_like", "resnext")
CARDINALITY = 16


def stage_widths(stage4: float) -> tuple[int, int, int]:
  """Channels of Stages 2, 3, 4 for a Stage 4 that may be fractional; the paper's average is such a one."""
  return tuple(max(round(stage4 / divisor), 1) for divisor in (4, 2, 1))


class Table4Net(nn.Module):
  """Images (n, h, w, 3) -> logits float32 (n, num_classes).

  Attributes:
    unit: "vgg_like" (two 3x3 convolutions), "resnet" (bottleneck 1:4), or "resnext" (bottleneck 1:2 rounded to a
      multiple of 16, cardinality 16). The Xception-like one is ShuffleNetV1 with groups=1.
    stage4: channels of Stage 4; see `stage_widths`.
    stem: channels of Conv1.
    num_classes: size of the last layer.
    repeats: units in Stages 2, 3, 4.
    dtype: compute dtype.
  """

  unit: str
  stage4: float
  stem: int
  num_classes: int = 1000
  repeats: tuple[int, ...] = (4, 8, 4)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    conv = functools.partial(ConvNormRelu, train=train, dtype=self.dtype)
    x = conv(self.stem, stride=2, name="stem")(images.astype(self.dtype))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage, (width, units) in enumerate(zip(stage_widths(self.stage4), self.repeats), start=2):
      for i in range(1, units + 1):
        stride, name = (2 if i == 1 else 1), f"stage{stage}_unit{i}"
        if self.unit == "vgg_like":
          x = conv(width, stride=stride, name=f"{name}_conv1")(x)
          x = conv(width, name=f"{name}_conv2")(x)
          continue
        if self.unit == "resnet":
          bottleneck, groups = max(width // 4, 1), 1
        else:
          bottleneck, groups = CARDINALITY * max(round(width / 2 / CARDINALITY), 1), CARDINALITY
        y = conv(bottleneck, 1, name=f"{name}_compress")(x)
        y = conv(bottleneck, 3, stride=stride, groups=groups, name=f"{name}_conv")(y)
        y = conv(width, 1, relu=False, name=f"{name}_expand")(y)
        if x.shape != y.shape:
          x = conv(width, 1, stride=stride, relu=False, name=f"{name}_project")(x)
        x = nn.relu(x + y)
    x = x.mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)


def solve_width(multiply_adds, budget: float) -> float:
  """The Stage 4 width from 8 to 8192, in steps of 1/4 channel, whose multiply-adds come nearest to a budget.

  Steps that interpolate, as multiply-adds are about quadratic, take turns
  with bisection, as rounded widths make jumps.

  Args:
    multiply_adds: function of the width, growing with it.
    budget: multiply-adds.
  """
  low, high = 4 * 8, 4 * 8192
  root_low, root_high = 0.0, None
  interpolate = False
  while high - low > 1:
    middle = (low + high) // 2
    if interpolate and root_high is not None:
      share = (math.sqrt(budget) - root_low) / (root_high - root_low)
      middle = min(max(round(low + share * (high - low)), low + 1), high - 1)
    found = multiply_adds(middle / 4)
    if found <= budget:
      low, root_low = middle, math.sqrt(found)
    else:
      high, root_high = middle, math.sqrt(found)
    interpolate = not interpolate
  return min((low / 4, high / 4), key=lambda width: abs(multiply_adds(width) - budget))
