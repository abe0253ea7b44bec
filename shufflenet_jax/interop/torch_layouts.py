"""PyTorch state dicts of ShuffleNet V1, recognised by their keys, as variables of `ShuffleNetV1`.

Two layouts are known. Our network shuffles directly after the first 1x1 convolution of a unit, before the batch norm of
that convolution. The channels of that norm are therefore reordered for both layouts.

- The authors' release shuffles after the depthwise convolution, in the inverse order, and takes BGR images. The
  depthwise kernels and their batch norm are reordered as well, and the stem's input channels are reversed.
- pytorchcv shuffles where the paper does, but puts the branch before the shortcut when it concatenates them.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS, stage_channels, stem_channels

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
  """The keys and conventions of one kind of state dict.

  Attributes:
    name: for messages.
    stem, stem_norm, classifier: prefixes of their keys.
    unit: prefix of a unit's keys, with {stage_from_1} (1-3), {unit} (from 1) and {index} (from 0, over all stages).
    parts: our module's name -> prefix within a unit.
    model: fields of a config's `model` section that follow from the layout.
    bgr: whether the network takes BGR images.
    shuffles_last: whether it shuffles after the depthwise convolution.
  """

  name: str
  stem: str
  stem_norm: str
  classifier: str
  unit: str
  parts: Mapping[str, str]
  model: Mapping[str, object]
  bgr: bool
  shuffles_last: bool


LAYOUTS = (
  Layout(
    name="the authors' release",
    stem="first_conv.0",
    stem_norm="first_conv.1",
    classifier="classifier.0",
    unit="features.{index}",
    parts={
      "compress": "branch_main_1.0",
      "compress_norm": "branch_main_1.1",
      "depthwise": "branch_main_1.3",
      "depthwise_norm": "branch_main_1.4",
      "expand": "branch_main_2.0",
      "expand_norm": "branch_main_2.1",
    },
    model={"shuffle": "release", "shortcut_first": True},
    bgr=True,
    shuffles_last=True,
  ),
  Layout(
    name="pytorchcv",
    stem="features.init_block.conv",
    stem_norm="features.init_block.bn",
    classifier="output",
    unit="features.stage{stage_from_1}.unit{unit}",
    parts={
      "compress": "compress_conv1",
      "compress_norm": "compress_bn1",
      "depthwise": "dw_conv2",
      "depthwise_norm": "dw_bn2",
      "expand": "expand_conv3",
      "expand_norm": "expand_bn3",
    },
    model={"shuffle": "paper", "shortcut_first": False},
    bgr=False,
    shuffles_last=False,
  ),
)


def recognise(state_dict: StateDict) -> Layout:
  """The layout to which the keys of the stem, the first unit and the classifier belong.

  Raises:
    UserError: there is none. The message lists the keys that were looked for, and those that were found.
  """
  for layout in LAYOUTS:
    if all(key in state_dict for key in _identifying_keys(layout)):
      return layout
  wanted = "; ".join(f"{', '.join(_identifying_keys(layout))} ({layout.name})" for layout in LAYOUTS)
  seen = ", ".join(list(state_dict)[:4]) or "nothing"
  raise UserError(f"no known ShuffleNet V1 state dict: looked for {wanted}; saw {len(state_dict)} keys: {seen}, ...")


def _identifying_keys(layout: Layout) -> list[str]:
  first = _unit_prefix(layout, 2, 1, 0)
  parts = (layout.stem, f"{first}.{layout.parts['compress']}", layout.classifier)
  return [f"{part}.weight" for part in parts]


def _unit_prefix(layout: Layout, stage: int, unit: int, index: int) -> str:
  return layout.unit.format(stage_from_1=stage - 1, unit=unit, index=index)


def convert(state_dict: StateDict) -> tuple[dict, dict, Layout]:
  """Converts a state dict to our variables.

  Args:
    state_dict: NumPy arrays by key, without a prefix that all keys share; convolutions in OIHW.

  Returns:
    (variables, model, layout): `params` and `batch_stats` in float32, the config's `model` section, and what was
    recognised.

  Raises:
    UserError: unknown keys, missing keys, shapes that fit no ShuffleNet V1, values that are not finite in float32, or
      negative variances.
  """
  layout = recognise(state_dict)
  model, units = _architecture(state_dict, layout)
  expected = build.variable_shapes(model, 224)
  reader = _Reader(state_dict, layout)
  params, stats = {}, {}

  def put(name, prefix, kind, unit=None, order=None):
    shapes = expected["params"][unit][name] if unit else expected["params"][name]
    own_params, own_stats = (params.setdefault(unit, {}), stats.setdefault(unit, {})) if unit else (params, stats)
    if kind == "norm":
      own_params[name], own_stats[name] = reader.norm(prefix, shapes["scale"].shape, order)
    else:
      own_params[name] = {"kernel": reader.kernel(prefix, shapes["kernel"].shape, order)}

  put("stem", layout.stem, "conv")
  if layout.bgr:
    params["stem"]["kernel"] = params["stem"]["kernel"][:, :, ::-1]
  put("stem_norm", layout.stem_norm, "norm")
  for name, prefix, bottleneck in units:
    # The order of channels after the shuffle, for those layers that follow it here but precede it in the file.
    groups = model["groups"] if model["shuffle"] == "paper" else bottleneck // model["groups"]
    order = np.arange(bottleneck).reshape(groups, -1).T.ravel()
    reordered = ("compress_norm", "depthwise", "depthwise_norm") if layout.shuffles_last else ("compress_norm",)
    for part, suffix in layout.parts.items():
      kind = "norm" if part.endswith("norm") else "conv"
      put(part, f"{prefix}.{suffix}", kind, name, order if part in reordered else None)
  classifier = {name: array.shape for name, array in expected["params"]["classifier"].items()}
  params["classifier"] = {"kernel": reader.take(f"{layout.classifier}.weight", classifier["kernel"][::-1]).T}
  if model["classifier_bias"]:
    params["classifier"]["bias"] = reader.take(f"{layout.classifier}.bias", classifier["bias"])
  if reader.unread:
    raise UserError(
      f"{len(reader.unread)} keys of {layout.name} belong to no known layer: {', '.join(sorted(reader.unread)[:4])}"
    )
  return {"params": params, "batch_stats": stats}, model, layout


class _Reader:
  """Reads arrays from a state dict in our shapes, and keeps track of the keys that were not read."""

  def __init__(self, state_dict: StateDict, layout: Layout):
    self._state_dict, self._layout = state_dict, layout
    self.unread = {key for key in state_dict if not key.endswith("num_batches_tracked")}

  def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an array of this shape as float32. Its values are checked after the cast, which makes 1e39 infinite."""
    if key not in self._state_dict:
      raise UserError(f"{key} is missing from what looks like {self._layout.name}")
    value = self._state_dict[key]
    if value.shape != shape:
      raise UserError(f"{key} has shape {value.shape}; {shape} would fit the other shapes in the file")
    if np.iscomplexobj(value):
      raise UserError(f"{key} holds complex numbers; a ShuffleNet's are real")
    with np.errstate(over="ignore"):
      value = np.asarray(value, np.float32)
    if bad := np.count_nonzero(~np.isfinite(value)):
      raise UserError(f"{key} holds {bad} values that are NaN or infinite in float32")
    if key.endswith("running_var") and (bad := np.count_nonzero(value < 0)):
      raise UserError(f"{key} holds {bad} negative variances")
    self.unread.discard(key)
    return value

  def kernel(self, prefix: str, shape: tuple[int, ...], order: np.ndarray | None) -> np.ndarray:
    h, w, i, o = shape
    kernel = self.take(f"{prefix}.weight", (o, i, h, w)).transpose(2, 3, 1, 0)  # o i h w -> h w i o
    return kernel if order is None else kernel[..., order]

  def norm(self, prefix: str, shape: tuple[int, ...], order: np.ndarray | None) -> tuple[dict, dict]:
    weight, bias, mean, var = (
      self.take(f"{prefix}.{name}", shape)[slice(None) if order is None else order]
      for name in ("weight", "bias", "running_mean", "running_var")
    )
    return {"scale": weight, "bias": bias}, {"mean": mean, "var": var}


def _architecture(state_dict: StateDict, layout: Layout) -> tuple[dict, list[tuple[str, str, int]]]:
  """The config's `model` section, and (our name, key prefix, bottleneck channels) of each unit."""

  def shape(prefix, dimensions=4):
    key = f"{prefix}.weight"
    if key not in state_dict:
      raise UserError(f"{key} is missing from what looks like {layout.name}")
    found = state_dict[key].shape
    if len(found) != dimensions or 0 in found:
      wanted = {4: "four (out, in, height, width)", 2: "two (classes, channels)"}[dimensions]
      raise UserError(f"{key} has shape {found}; its dimensions must be {wanted}, none of them 0")
    return found

  # Units in order. A stage ends where the channels of the depthwise convolution change.
  units, widths, repeats, index = [], [], [], 0
  for stage in (2, 3, 4):
    unit = 1
    while True:
      prefix = _unit_prefix(layout, stage, unit, index)
      # The first unit of a stage must exist; a later one exists if any of its keys does.
      if unit > 1 and not any(key.startswith(f"{prefix}.") for key in state_dict):
        break
      shape(f"{prefix}.{layout.parts['compress']}")
      bottleneck = shape(f"{prefix}.{layout.parts['depthwise']}")[0]
      if unit > 1 and bottleneck != units[-1][2]:
        break
      units.append((f"stage{stage}_unit{unit}", prefix, bottleneck))
      unit, index = unit + 1, index + 1
    widths.append(4 * units[-1][2])
    repeats.append(unit - 1)
  groups = units[0][2] // shape(f"{units[0][1]}.{layout.parts['expand']}")[1]
  stem = shape(layout.stem)[0]
  scale = widths[0] / STAGE2_CHANNELS.get(groups, np.nan)
  if groups not in STAGE2_CHANNELS or stage_channels(groups, scale) != tuple(widths):
    raise UserError(
      f"stages of {', '.join(map(str, widths))} channels in {groups} groups match no scale of the paper's Table 1"
    )
  if stem % groups or stem >= widths[0]:
    raise UserError(
      f"{layout.stem}.weight has shape {shape(layout.stem)}; the stem must have fewer channels than Stage 2, which has"
      f" {widths[0]}, and a multiple of {groups}, the number of groups"
    )
  classifier = shape(layout.classifier, 2)
  if classifier[1] != widths[-1]:
    raise UserError(f"{layout.classifier}.weight has shape {classifier}; Stage 4 makes {widths[-1]} channels")
  model = {
    "network": "shufflenet_v1",
    **build.own_fields("shufflenet_v1"),
    "groups": groups,
    "scale": scale,
    **layout.model,
    "repeats": tuple(repeats),
    "stem": 0 if stem == stem_channels(groups, scale) else stem,
    "classifier_bias": f"{layout.classifier}.bias" in state_dict,
    "num_classes": classifier[0],
    "dtype": "float32",
  }
  return model, units
