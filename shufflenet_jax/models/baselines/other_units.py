"""The networks of Table 4: other units in the place of ShuffleNet's, at the same number of multiply-adds.

The rest is as in Table 1: a 3x3 convolution and a 3x3 max pool, both of stride 2, stages of 4, 8 and 4 units whose
channels double from stage to stage, global average pool, last layer. The width of the stages is solved for a budget of
multiply-adds. The stem has 24 channels for 140 MFLOPs and 12 for less, as in ShuffleNet.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.counting.multiply_adds import count_network
from shufflenet_jax.errors import UserError
from shufflenet_jax.models.conv_norm_relu import ConvNormRelu
from shufflenet_jax.models.formulations import choose
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS, ShuffleNetV1

UNITS = ("vgg_like", "resnet", "xception_like", "resnext")
CARDINALITY = 16


def stage_widths(stage4: float) -> tuple[int, int, int]:
  """Channels of Stages 2, 3 and 4, rounded, from the possibly fractional channels of Stage 4."""
  return tuple(max(round(stage4 / divisor), 1) for divisor in (4, 2, 1))


class Table4Net(nn.Module):
  """Images (n, h, w, 3) -> logits float32 (n, num_classes).

  Attributes:
    unit: "vgg_like" (two 3x3 convolutions), "resnet" (bottleneck 1:4), or "resnext" (bottleneck 1:2 rounded to a
      multiple of 16, cardinality 16). The Xception-like network is ShuffleNetV1 with groups=1.
    stage4: channels of Stage 4; see `stage_widths`.
    stem: channels of Conv1.
    num_classes: size of the last layer.
    repeats: units in Stages 2, 3, 4.
    lowering: the formulation, one of `formulations.choose.LOWERINGS`.
    dtype: compute dtype.
  """

  unit: str
  stage4: float
  stem: int
  num_classes: int = 1000
  repeats: tuple[int, ...] = (4, 8, 4)
  lowering: str = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    conv = functools.partial(ConvNormRelu, train=train, lowering=self.lowering, dtype=self.dtype)
    x = conv(self.stem, stride=2, name="stem")(images.astype(self.dtype))
    x = choose.max_pool3x3(self.lowering, x)
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
        x = choose.add_relu(self.lowering, x, y)
    x = x.mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)


def solve_width(multiply_adds, budget: float) -> float:
  """The Stage 4 width from 8 to 8192, in steps of 1/4 channel, whose multiply-adds come nearest to a budget.

  Multiply-adds are roughly quadratic in the width, so interpolating their
  square root converges quickly. Because rounded widths cause jumps, every
  second step bisects.

  Args:
    multiply_adds: an increasing function of the width.
    budget: multiply-adds.
  """
  low, high = 4 * 8, 4 * 8192
  root_low, root_high = 0.0, None
  interpolate = False
  while high - low > 1:
    middle = (low + high) // 2
    if interpolate and root_high is not None:
      fraction = (math.sqrt(budget) - root_low) / (root_high - root_low)
      middle = min(max(round(low + fraction * (high - low)), low + 1), high - 1)
    count = multiply_adds(middle / 4)
    if count <= budget:
      low, root_low = middle, math.sqrt(count)
    else:
      high, root_high = middle, math.sqrt(count)
    interpolate = not interpolate
  return min((low / 4, high / 4), key=lambda width: abs(multiply_adds(width) - budget))


@functools.cache
def constructor_for_budget(unit: str, mflops: float):
  """A constructor of the network with this unit, whose width is solved for a budget.

  Args:
    unit: one of `UNITS`.
    mflops: millions of multiply-adds of the convolutions, for one 224x224 image.

  Returns:
    A function of the other fields (num_classes, dtype and the network's own) that returns the Flax module.

  Raises:
    UserError: no width comes within 3 % of the budget.
  """
  if not 5 <= mflops <= 5000:
    raise UserError(f"config.model.mflops={mflops} must lie between 5 and 5000; the paper has 140, 38 and 13")
  stem = 24 if mflops >= 100 else 12

  def constructor(stage4):
    if unit == "xception_like":
      return functools.partial(ShuffleNetV1, 1, stage4 / (4 * STAGE2_CHANNELS[1]), stem=stem)
    return functools.partial(Table4Net, unit, stage4, stem)

  @functools.cache
  def multiply_adds(stage4):
    try:
      return count_network(constructor(stage4)(), 224).without_classifier
    except ValueError:  # Stage 2 is narrower than the stem
      return 0

  stage4 = solve_width(multiply_adds, mflops * 1e6)
  nearest = multiply_adds(stage4) / 1e6
  if abs(nearest / mflops - 1) > 0.03:
    why = f"the nearest of its widths has {nearest:.1f}" if nearest else "its narrowest width has more"
    raise UserError(f"config.model.mflops={mflops} cannot be met by {unit} within 3 %: {why}")
  return constructor(stage4)
