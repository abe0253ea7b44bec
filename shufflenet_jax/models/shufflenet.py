"""The ShuffleNet unit and network (sections 3.2 and 3.3, Table 1)."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import BatchNorm, moments, normalized_conv1x1
from shufflenet_jax.models.layers import Kernel, SqueezeExcite, relu
from shufflenet_jax.models.lowering import (
  add_relu,
  affine_relu_depthwise3x3,
  avg_pool3x3,
  conv,
  fork,
  group_conv1x1,
  max_pool3x3,
  relu_groups,
  stem_conv3x3,
)

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

  Batch norm and ReLU act on each channel alone, so the shuffle may stand
  ahead of those of Fig. 2: `compress_norm` is in the shuffled order.

  Attributes:
    features: output channels; the bottleneck is a quarter of them.
    groups: groups of both 1x1 convolutions.
    stride: 1 or 2.
    norm: a `BatchNorm` constructor, called with the channels and a name.
    compress_groups: groups of the first 1x1 convolution where they differ
      (Stage 2 begins with 1: its input has too few channels to be grouped).
    shuffle: one of `SHUFFLES`. "release" is the paper's shuffle with
      channels / groups groups, its inverse.
    shortcut_first: whether the pooled input stands before the branch.
    se: whether the output goes through squeeze-and-excitation (Table 5).
    lowering: how the convolutions are computed; see `models/lowering.py`.
    dtype: compute dtype.

  Raises:
    ValueError: channels that do not fit.
  """

  features: int
  groups: int
  stride: int
  norm: Any = BatchNorm
  compress_groups: int | None = None
  shuffle: str = "paper"
  shortcut_first: bool = True
  se: bool = False
  lowering: str = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c_in, groups, lowering = x.shape[-1], self.groups, self.lowering
    branch_features = self.features - c_in if self.stride == 2 else self.features
    if self.stride == 1 and c_in != self.features:
      raise ValueError(f"a unit of stride 1 keeps its channels: input has {c_in}, features={self.features}")
    if branch_features <= 0:
      raise ValueError(f"a unit of stride 2 concatenates its input: features={self.features} must exceed {c_in}")
    bottleneck = self.features // 4
    compress_groups = self.compress_groups or groups
    shuffle_groups = {"paper": groups, "release": bottleneck // groups, "none": 1}[self.shuffle]
    compress = Kernel((1, 1, c_in // compress_groups, bottleneck), name="compress")()
    depthwise = Kernel((3, 3, 1, bottleneck), name="depthwise")()
    expand = Kernel((1, 1, bottleneck // groups, branch_features), name="expand")()
    compress_norm = self.norm(bottleneck, name="compress_norm")
    depthwise_norm = self.norm(bottleneck, name="depthwise_norm")
    expand_norm = self.norm(branch_features, name="expand_norm")

    x, y = fork(x, groups, lowering) if self.stride == 1 else (x, x)
    y = group_conv1x1(y.astype(self.dtype), compress, compress_groups, shuffle_groups, lowering)
    # No ReLU behind the depthwise convolution (section 3.2).
    y = affine_relu_depthwise3x3(y, *compress_norm.affine_of(y), depthwise, self.stride, lowering)
    if lowering == "reference":
      y = expand_norm(group_conv1x1(depthwise_norm(y), expand, groups, lowering=lowering))
    else:
      y = normalized_conv1x1(y, expand, groups, depthwise_norm, expand_norm, lowering)

    if self.stride == 1:
      y = add_relu(x, y, groups, lowering)
    else:
      parts = [avg_pool3x3(x, lowering), y]
      # Fig. 2c has ReLU ahead of the concatenation: the same, as the shortcut is >= 0 already.
      y = jnp.concatenate(parts if self.shortcut_first else parts[::-1], axis=-1)
      y = relu_groups(y, groups, lowering)
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
    lowering: how the convolutions are computed; see `models/lowering.py`.
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
  lowering: str = "auto"
  dtype: Any = jnp.float32
  norm_momentum: float = 0.9
  norm_epsilon: float = 1e-5

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Logits; with `train`, batch statistics are the batch's own and `batch_stats` must be mutable."""
    norm = functools.partial(BatchNorm, train=train, momentum=self.norm_momentum, epsilon=self.norm_epsilon)
    with jax.named_scope("stem"):
      x = self._stem(images.astype(self.dtype), norm)
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
          lowering=self.lowering,
          dtype=self.dtype,
          name=f"stage{stage}_unit{unit}",
        )(x)
    x = x.mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    logits = nn.Dense(self.num_classes, use_bias=self.classifier_bias, dtype=self.dtype, name="classifier")(x)
    return logits.astype(jnp.float32)

  def _stem(self, images: jax.Array, norm) -> jax.Array:
    """Conv1 and max pool of Table 1: (n, h, w, 3) -> (n, ceil(h/4), ceil(w/4), stem)."""
    features = self.stem or stem_channels(self.groups, self.scale)
    kernel = Kernel((3, 3, 3, features), name="stem")()
    norm = norm(features, name="stem_norm")
    pool = functools.partial(max_pool3x3, lowering=self.lowering)
    if self.lowering == "reference":
      return pool(relu(norm(conv(images, kernel, stride=2))))
    # Norm and ReLU grow with their input where the norm's scale is positive, so they may stand behind the pool, which
    # leaves them a quarter of the positions. A negative scale is made positive by turning the kernel's sign.
    sign = jnp.where(norm.scale < 0, -1.0, 1.0)
    x = stem_conv3x3(images, kernel * sign, self.lowering)
    mean, var = moments(x) if norm.train else (None, None)
    a, b = norm.affine(mean if mean is None else mean * sign, var)
    return relu(pool(x).astype(jnp.float32) * (a * sign) + b).astype(self.dtype)
