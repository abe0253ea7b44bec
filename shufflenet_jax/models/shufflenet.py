"""The ShuffleNet unit and network (sections 3.2 and 3.3, Table 1)."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.layers import DepthwiseConv3x3, GroupConv1x1, SqueezeExcite, channel_shuffle

# Stage 2 output channels at 1x (Table 1). Every later stage doubles them.
STAGE2_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}


def stage_channels(groups: int, scale: float) -> tuple[int, int, int]:
  """Output channels of Stages 2, 3 and 4.

  Each stage of Table 1 times `scale`, rounded up to a multiple of 4 * groups:
  a unit's bottleneck is a quarter of its output and has to divide into groups.
  (Table 4's "576" for 0.5x g=4 is not among them: that needs Stage 2 rounded
  to 144 and then doubled twice, 40.8M multiply-adds in place of 37.4M.)

  Raises:
    ValueError: `groups` is not in Table 1, or `scale` is not positive.
  """
  if groups not in STAGE2_CHANNELS:
    raise ValueError(f"groups={groups!r} is not in the paper's Table 1; one of {', '.join(map(str, STAGE2_CHANNELS))}")
  if not (math.isfinite(scale) and scale > 0):
    raise ValueError(f"scale={scale!r} must be a positive number, for instance 0.25, 0.5, 1.0, 1.5 or 2.0")
  unit = 4 * groups
  # round() first: 1.1 * 240 is 264.00000000000006 in floating point, and means 264.
  return tuple(unit * math.ceil(round(scale * STAGE2_CHANNELS[groups] * 2**i, 6) / unit) for i in range(3))


def stem_channels(groups: int, scale: float) -> int:
  """Output channels of Conv1: 12 below 1x, 24 from 1x, 48 from 2x, rounded up to a multiple of groups.

  The paper states only the 24 of 1x; the others follow from its complexities
  (Tables 2 and 5) and the authors' release. Units of stride 2 add
  `out - in` channels by a group convolution, so groups must divide the stem.
  """
  width = 12 if scale < 1 else 24 if scale < 2 else 48
  return groups * math.ceil(width / groups)


# How a unit mixes its bottleneck's channels: as the paper, in the reversed order of the authors' release, or not.
SHUFFLES = ("paper", "release", "none")


class ShuffleUnit(nn.Module):
  """ShuffleNet unit (Fig. 2b with stride 1, Fig. 2c with stride 2).

  (n, h, w, c_in) -> (n, h, w, features) with stride 1, where c_in = features;
  -> (n, ceil(h/2), ceil(w/2), features) with stride 2, where the branch makes
  `features - c_in` channels and the average-pooled input is the rest.

  Attributes:
    features: output channels; the bottleneck is a quarter of them.
    groups: groups of both 1x1 convolutions.
    stride: 1 or 2.
    norm: a batch norm constructor, called with a name.
    compress_groups: groups of the first 1x1 convolution where they differ
      (Stage 2 begins with 1: its input has too few channels to be grouped).
    shuffle: one of `SHUFFLES`. "release" is the paper's shuffle with
      channels / groups groups, its inverse.
    shortcut_first: whether the pooled input stands before the branch.
    se: whether the output goes through squeeze-and-excitation (Table 5).
    dtype: compute dtype.

  Raises:
    ValueError: channels that do not fit.
  """

  features: int
  groups: int
  stride: int
  norm: Any
  compress_groups: int | None = None
  shuffle: str = "paper"
  shortcut_first: bool = True
  se: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c_in = x.shape[-1]
    branch_features = self.features - c_in if self.stride == 2 else self.features
    if self.stride == 1 and c_in != self.features:
      raise ValueError(f"a unit of stride 1 keeps its channels: input has {c_in}, features={self.features}")
    if branch_features <= 0:
      raise ValueError(f"a unit of stride 2 concatenates its input: features={self.features} must exceed {c_in}")
    bottleneck = self.features // 4

    y = GroupConv1x1(bottleneck, self.compress_groups or self.groups, self.dtype, name="compress")(x)
    y = nn.relu(self.norm(name="compress_norm")(y))
    if self.shuffle != "none":
      with jax.named_scope("channel_shuffle"):
        y = channel_shuffle(y, self.groups if self.shuffle == "paper" else bottleneck // self.groups)
    y = DepthwiseConv3x3(self.stride, self.dtype, name="depthwise")(y)
    y = self.norm(name="depthwise_norm")(y)  # no ReLU here (section 3.2)
    y = GroupConv1x1(branch_features, self.groups, self.dtype, name="expand")(y)
    y = self.norm(name="expand_norm")(y)

    if self.stride == 1:
      y = nn.relu(x + y)
    else:
      # ReLU after the concatenation would do the same: the shortcut is >= 0 already.
      parts = [nn.avg_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))), nn.relu(y)]
      y = jnp.concatenate(parts if self.shortcut_first else parts[::-1], axis=-1)
    return SqueezeExcite(dtype=self.dtype, name="squeeze_excite")(y) if self.se else y


class ShuffleNetV1(nn.Module):
  """ShuffleNet V1 (Table 1): images (n, h, w, 3) -> logits float32 (n, num_classes).

  `init` gives the collections `params` and `batch_stats`, all float32. Any
  image size works; below 32x32 Stage 4 sees a single position.

  Attributes:
    groups: groups of the 1x1 convolutions: 1, 2, 3, 4 or 8.
    scale: multiplies the channels of Table 1; see `stage_channels`.
    num_classes: size of the last layer.
    shuffle: "paper", "release" or "none" (Table 3 compares); see `ShuffleUnit`.
    shortcut_first: see `ShuffleUnit`; the authors' release has True, pytorchcv False.
    se: squeeze-and-excitation after each unit (Table 5's "2x + SE").
    repeats: units in Stages 2, 3, 4, the one of stride 2 included; (2, 4, 2) is Table 5's "shallow".
    stem: output channels of Conv1; 0 for `stem_channels`.
    classifier_bias: whether the last layer has a bias (the authors' release has none).
    dtype: compute dtype, float32 or bfloat16.
    norm_momentum: how much of the running batch statistics a step keeps.
    norm_epsilon: added to the variance.
  """

  groups: int = 3
  scale: float = 1.0
  num_classes: int = 1000
  shuffle: str = "paper"
  shortcut_first: bool = True
  se: bool = False
  repeats: tuple[int, ...] = (4, 8, 4)
  stem: int = 0
  classifier_bias: bool = True
  dtype: Any = jnp.float32
  norm_momentum: float = 0.9
  norm_epsilon: float = 1e-5

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Logits; with `train`, batch statistics are the batch's own and `batch_stats` must be mutable."""
    norm = functools.partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=self.norm_momentum,
      epsilon=self.norm_epsilon,
      dtype=self.dtype,
    )
    x = nn.Conv(
      self.stem or stem_channels(self.groups, self.scale),
      (3, 3),
      strides=2,
      padding=1,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.he_normal(),
      name="stem",
    )(images.astype(self.dtype))
    x = nn.relu(norm(name="stem_norm")(x))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage, (features, units) in enumerate(zip(stage_channels(self.groups, self.scale), self.repeats), start=2):
      for unit in range(1, units + 1):
        x = ShuffleUnit(
          features,
          self.groups,
          stride=2 if unit == 1 else 1,
          norm=norm,
          compress_groups=1 if (stage, unit) == (2, 1) else None,
          shuffle=self.shuffle,
          shortcut_first=self.shortcut_first,
          se=self.se,
          dtype=self.dtype,
          name=f"stage{stage}_unit{unit}",
        )(x)
    x = x.mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    logits = nn.Dense(self.num_classes, use_bias=self.classifier_bias, dtype=self.dtype, name="classifier")(x)
    return logits.astype(jnp.float32)
