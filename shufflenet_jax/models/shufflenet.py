"""The ShuffleNet unit and network (sections 3.2 and 3.3, Table 1)."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import BatchNorm
from shufflenet_jax.models.formulations import choose
from shufflenet_jax.models.formulations.interface import PerLayer
from shufflenet_jax.models.layers import Kernel, SqueezeExcite, stages_between

# Groups -> output channels of Stage 2 at 1x (Table 1). Every later stage doubles them.
STAGE2_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}


def stage_channels(groups: int, scale: float) -> tuple[int, int, int]:
  """Output channels of Stages 2, 3 and 4.

  Each stage of Table 1 times `scale`, rounded up to a multiple of 4 * groups:
  a unit's bottleneck is a quarter of its output and has to divide into groups.
  (The rule does not give the "576" that Table 4 prints for 0.5x g=4. For that,
  Stage 2 would have to be rounded to 144 and then doubled twice, which makes
  40.8M multiply-adds in place of 37.4M.)

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


# The keys of `features`, in the network's order.
STAGES = ("stage2", "stage3", "stage4")
# How a unit mixes the channels of its bottleneck: as in the paper, by the inverse permutation as in the authors'
# release, or not at all.
SHUFFLES = ("paper", "release", "none")


class ShuffleUnit(nn.Module):
  """ShuffleNet unit (section 3.2; Fig. 2b with stride 1, Fig. 2c with stride 2).

  It declares the parameters; `models/formulations` computes with them.

  (n, h, w, c_in) -> (n, h, w, features) with stride 1, where c_in = features;
  -> (n, ceil(h/2), ceil(w/2), features) with stride 2, where the branch makes
  `features - c_in` channels and the average-pooled input is the rest.

  The parameters of `compress_norm` are in the shuffled order of the channels.

  Attributes:
    features: output channels; the bottleneck has a quarter as many.
    groups: channel groups of both 1x1 convolutions.
    stride: 1 or 2.
    norm: a `BatchNorm` constructor, called with the channels and a name.
    compress_groups: groups of the first 1x1 convolution, if not `groups`
      (1 in the first unit of Stage 2, whose input has too few channels to be grouped).
    shuffle: one of `SHUFFLES`. "release" is the inverse of "paper": the
      same function, called with `channels / groups` as its number of groups.
    shortcut_first: with stride 2, whether the pooled input precedes the branch in the output.
    se: whether the output passes through squeeze-and-excitation (Table 5).
    lowering: the formulation, one of `formulations.choose.LOWERINGS`.
    dtype: compute dtype.

  Raises:
    ValueError: a stride, channels or groups that do not fit, or an unknown lowering.
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
    c_in, groups = x.shape[-1], self.groups
    compress_groups = self.compress_groups or groups
    branch, bottleneck = self._widths(c_in, compress_groups)
    kernels = PerLayer(
      compress=Kernel((1, 1, c_in // compress_groups, bottleneck), name="compress")(),
      depthwise=Kernel((3, 3, 1, bottleneck), name="depthwise")(),
      expand=Kernel((1, 1, bottleneck // groups, branch), name="expand")(),
    )
    norms = PerLayer(
      compress=self.norm(bottleneck, name="compress_norm"),
      depthwise=self.norm(bottleneck, name="depthwise_norm"),
      expand=self.norm(branch, name="expand_norm"),
    )
    y, batch_moments = choose.unit(
      self.lowering,
      kernels,
      PerLayer(*[norm.value() for norm in norms]),
      x.astype(self.dtype),
      stride=self.stride,
      compress_groups=compress_groups,
      groups=groups,
      shuffle_groups={"paper": groups, "release": bottleneck // groups, "none": 1}[self.shuffle],
      shortcut_first=self.shortcut_first,
    )
    for norm, moments in zip(norms, batch_moments):
      norm.update(moments)
    return SqueezeExcite(dtype=self.dtype, name="squeeze_excite")(y) if self.se else y

  def _widths(self, c_in: int, compress_groups: int) -> tuple[int, int]:
    """Channels of the branch's output and of the bottleneck."""
    if self.stride not in (1, 2):
      raise ValueError(f"stride={self.stride!r} is neither 1 nor 2, the strides of the paper's units")
    if self.stride == 1 and c_in != self.features:
      raise ValueError(f"a unit of stride 1 keeps its channels: input has {c_in}, features={self.features}")
    branch, bottleneck = self.features - (c_in if self.stride == 2 else 0), self.features // 4
    if branch <= 0:
      raise ValueError(f"a unit of stride 2 concatenates its input: features={self.features} must exceed {c_in}")
    for groups, inputs, outputs in ((compress_groups, c_in, bottleneck), (self.groups, bottleneck, branch)):
      if inputs % groups or outputs % groups:
        raise ValueError(f"{groups} groups do not divide {inputs} input and {outputs} output channels")
    return branch, bottleneck


class ShuffleNetV1(nn.Module):
  """ShuffleNet V1 (Table 1): images (n, h, w, 3) -> logits float32 (n, num_classes).

  `init` gives the collections `params` and `batch_stats`, all float32. Any
  image size works; up to 32x32, the output of Stage 4 has a single position.

      model = ShuffleNetV1(groups=3, num_classes=10)
      variables = model.init(key, images)
      logits = model.apply(variables, images)
      maps = model.apply(variables, images, method="features")  # a backbone for other tasks

  Attributes:
    groups: groups of the 1x1 convolutions: 1, 2, 3, 4 or 8.
    scale: multiplies the channels of Table 1; see `stage_channels`.
    num_classes: size of the last layer.
    shuffle: "paper", "release" or "none" (Table 3 compares); see `ShuffleUnit`.
    shortcut_first: see `ShuffleUnit`; the authors' release has True, pytorchcv False.
    se: squeeze-and-excitation after each unit (Table 5's "2x + SE").
    repeats: units in Stages 2, 3, 4, including the one of stride 2; (2, 4, 2) is Table 5's "shallow".
    stem: output channels of Conv1; 0 for `stem_channels`.
    classifier_bias: whether the last layer has a bias (the authors' release has none).
    lowering: the formulation, one of `formulations.choose.LOWERINGS`.
    dtype: compute dtype, float32 or bfloat16.
    norm_momentum: the share of the running batch statistics that survives one step.
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

  def setup(self):
    self.classifier = nn.Dense(self.num_classes, use_bias=self.classifier_bias, dtype=self.dtype)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Logits; with `train`, batch norm uses the batch's own statistics, and `batch_stats` must be mutable."""
    return self.classify(self.features(images, train))

  @nn.compact
  def features(
    self, images: jax.Array, train: bool = False, *, after: str | None = None, until: str = "stage4"
  ) -> dict[str, jax.Array]:
    """The output of each stage, in `dtype`: "stage2", "stage3", "stage4" -> (n, h, w, c), of strides 8, 16 and 32.

    A detector calls this twice: `until="stage3"` for the images, and then `after="stage3"` for crops of that map.

    Args:
      images: float (n, h, w, 3); with `after`, the output of that stage or parts of it.
      train: see `__call__`.
      after: the stage whose output is given in place of images. Only the stages after it are computed.
      until: the last stage that is computed.

    Raises:
      ValueError: images without three channels, an unknown stage, or fields that do not fit together.
    """
    computed = stages_between(STAGES, after, until)
    norm = functools.partial(BatchNorm, train=train, momentum=self.norm_momentum, epsilon=self.norm_epsilon)
    x = images.astype(self.dtype)
    if after is None:
      if images.shape[-1] != 3:
        raise ValueError(f"images of shape {images.shape} do not have three channels (n, h, w, 3)")
      x = self._stem(x, norm)
    maps = {}
    for stage, features, units in zip(STAGES, stage_channels(self.groups, self.scale), self.repeats):
      if stage not in computed:
        continue
      for unit in range(1, units + 1):
        x = ShuffleUnit(
          features,
          self.groups,
          stride=2 if unit == 1 else 1,
          norm=norm,
          compress_groups=1 if (stage, unit) == ("stage2", 1) else None,
          shuffle=self.shuffle,
          shortcut_first=self.shortcut_first,
          se=self.se,
          lowering=self.lowering,
          dtype=self.dtype,
          name=f"{stage}_unit{unit}",
        )(x)
      maps[stage] = x
    return maps

  def classify(self, features: dict[str, jax.Array]) -> jax.Array:
    """Global pool and last layer of Table 1: the maps of `features` -> logits float32 (n, num_classes)."""
    pooled = features["stage4"].mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    return self.classifier(pooled).astype(jnp.float32)

  def _stem(self, images: jax.Array, norm) -> jax.Array:
    """Conv1 and max pool of Table 1: (n, h, w, 3) -> (n, ceil(h/4), ceil(w/4), stem)."""
    width = self.stem or stem_channels(self.groups, self.scale)
    with jax.named_scope("stem"):
      kernel, norm = Kernel((3, 3, 3, width), name="stem")(), norm(width, name="stem_norm")
      x, batch_moments = choose.stem(self.lowering, kernel, norm.value(), images)
      norm.update(batch_moments)
    return x
