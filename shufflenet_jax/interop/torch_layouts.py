"""PyTorch state dicts of ShuffleNet V1, recognised by their keys, as variables of `ShuffleNetV1`.

NumPy only. Two layouts are known. The authors' release shuffles after the
depthwise convolution, in the reversed order, and takes BGR images; the
shuffle is moved ahead of that convolution by reordering its kernels and batch
norm, and the stem's kernel is turned to RGB, so that one network serves both.
pytorchcv concatenates the branch first.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from shufflenet_jax.errors import UserError
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS, stage_channels, stem_channels

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where a state dict keeps what.

  Attributes:
    name: for messages.
    stem, stem_norm, classifier: key prefixes.
    unit: prefix of a unit, with {stage} (2-4), {unit} (from 1) and {index} (from 0, over all stages).
    parts: our module name -> prefix within a unit.
    model: fields of a config's `model` section that the layout fixes.
    bgr: whether it takes BGR images.
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
    "the authors' release",
    "first_conv.0",
    "first_conv.1",
    "classifier.0",
    "features.{index}",
    {
      "compress": "branch_main_1.0",
      "compress_norm": "branch_main_1.1",
      "depthwise": "branch_main_1.3",
      "depthwise_norm": "branch_main_1.4",
      "expand": "branch_main_2.0",
      "expand_norm": "branch_main_2.1",
    },
    {"shuffle": "release", "shortcut_first": True},
    bgr=True,
    shuffles_last=True,
  ),
  Layout(
    "pytorchcv",
    "features.init_block.conv",
    "features.init_block.bn",
    "output",
    "features.stage{stage_from_1}.unit{unit}",
    {
      "compress": "compress_conv1",
      "compress_norm": "compress_bn1",
      "depthwise": "dw_conv2",
      "depthwise_norm": "dw_bn2",
      "expand": "expand_conv3",
      "expand_norm": "expand_bn3",
    },
    {"shuffle": "paper", "shortcut_first": False},
    bgr=False,
    shuffles_last=False,
  ),
)


def recognise(state_dict: StateDict) -> Layout:
  """The layout whose stem, first unit and classifier the keys show.

  Raises:
    UserError: none; names the keys looked for and seen.
  """
  for layout in LAYOUTS:
    if all(key in state_dict for key in _telling_keys(layout)):
      return layout
  wanted = "; ".join(f"{', '.join(_telling_keys(layout))} ({layout.name})" for layout in LAYOUTS)
  seen = ", ".join(list(state_dict)[:4]) or "nothing"
  raise UserError(f"no known ShuffleNet V1 state dict: looked for {wanted}; saw {len(state_dict)} keys: {seen}, ...")


def _telling_keys(layout: Layout) -> list[str]:
  first = _unit_prefix(layout, 2, 1, 0)
  parts = (layout.stem, f"{first}.{layout.parts['compress']}", layout.classifier)
  return [f"{part}.weight" for part in parts]


def _unit_prefix(layout: Layout, stage: int, unit: int, index: int) -> str:
  return layout.unit.format(stage_from_1=stage - 1, unit=unit, index=index)


def convert(state_dict: StateDict) -> tuple[dict, dict, Layout]:
  """A state dict, without any "module." prefix, as our variables.

  Args:
    state_dict: NumPy arrays; convolutions OIHW.

  Returns:
    (variables, model, layout): `params` and `batch_stats` float32, and the config's `model` section without dtype.

  Raises:
    UserError: unknown keys, missing keys, shapes of no ShuffleNet V1, values that are not finite.
  """
  layout = recognise(state_dict)
  for key, value in state_dict.items():
    if not np.isfinite(value).all():
      raise UserError(f"{key} holds {int((~np.isfinite(value)).sum())} values that are NaN or infinite")
  model, units = _architecture(state_dict, layout)
  reader = _Reader(state_dict, layout)
  params, stats = {}, {}

  def put(name, prefix, kind, where=None, order=None):
    own_params, own_stats = (params, stats) if where is None else where
    if kind == "norm":
      own_params[name], own_stats[name] = reader.norm(prefix, order)
    else:
      own_params[name] = {"kernel": reader.kernel(prefix, order)}

  put("stem", layout.stem, "conv")
  if layout.bgr:
    params["stem"]["kernel"] = params["stem"]["kernel"][:, :, ::-1]
  put("stem_norm", layout.stem_norm, "norm")
  for name, prefix, bottleneck in units:
    where = params.setdefault(name, {}), stats.setdefault(name, {})
    # The order in which the release's shuffle, moved ahead, hands channels to the depthwise convolution.
    order = np.arange(bottleneck).reshape(-1, model["groups"]).T.ravel() if layout.shuffles_last else None
    for part, suffix in layout.parts.items():
      moved = order if part.startswith("depthwise") else None
      put(part, f"{prefix}.{suffix}", "norm" if part.endswith("norm") else "conv", where, moved)
  params["classifier"] = {"kernel": reader.take(f"{layout.classifier}.weight").T}
  if model["classifier_bias"]:
    params["classifier"]["bias"] = reader.take(f"{layout.classifier}.bias")
  if reader.unread:
    raise UserError(
      f"{len(reader.unread)} keys of {layout.name} are of no known layer: {', '.join(sorted(reader.unread)[:4])}"
    )
  return {"params": params, "batch_stats": stats}, model, layout


class _Reader:
  """Takes arrays out of a state dict, in our shapes, and knows which were not taken."""

  def __init__(self, state_dict: StateDict, layout: Layout):
    self._state_dict, self._layout = state_dict, layout
    self.unread = {key for key in state_dict if not key.endswith("num_batches_tracked")}

  def take(self, key: str) -> np.ndarray:
    if key not in self._state_dict:
      raise UserError(f"{key} is missing from what looks like {self._layout.name}")
    self.unread.discard(key)
    return np.asarray(self._state_dict[key], np.float32)

  def kernel(self, prefix: str, order: np.ndarray | None) -> np.ndarray:
    weight = self.take(f"{prefix}.weight")
    if weight.ndim != 4:
      raise UserError(f"{prefix}.weight has shape {weight.shape}; a convolution's has four dimensions")
    kernel = weight.transpose(2, 3, 1, 0)  # o i h w -> h w i o
    return kernel if order is None else kernel[..., order]

  def norm(self, prefix: str, order: np.ndarray | None) -> tuple[dict, dict]:
    weight, bias, mean, var = (
      self.take(f"{prefix}.{name}")[slice(None) if order is None else order]
      for name in ("weight", "bias", "running_mean", "running_var")
    )
    return {"scale": weight, "bias": bias}, {"mean": mean, "var": var}


def _architecture(state_dict: StateDict, layout: Layout) -> tuple[dict, list[tuple[str, str, int]]]:
  """The config's `model` section, and (our name, key prefix, bottleneck channels) of each unit."""

  def shape(prefix, part):
    key = f"{prefix}.{layout.parts[part]}.weight"
    if key not in state_dict:
      raise UserError(f"{key} is missing from what looks like {layout.name}")
    return state_dict[key].shape

  # Units in order; each stage begins where the depthwise channels change.
  units, widths, repeats, index = [], [], [], 0
  for stage in (2, 3, 4):
    unit = 1
    while True:
      prefix = _unit_prefix(layout, stage, unit, index)
      if f"{prefix}.{layout.parts['compress']}.weight" not in state_dict:
        break
      bottleneck = shape(prefix, "depthwise")[0]
      if unit > 1 and bottleneck != units[-1][2]:
        break
      units.append((f"stage{stage}_unit{unit}", prefix, bottleneck))
      unit, index = unit + 1, index + 1
    if unit == 1:
      raise UserError(f"stage {stage} has no units in what looks like {layout.name}")
    widths.append(4 * units[-1][2])
    repeats.append(unit - 1)
  groups = units[0][2] // shape(units[0][1], "expand")[1]
  stem = state_dict[f"{layout.stem}.weight"].shape[0]
  scale = widths[0] / STAGE2_CHANNELS.get(groups, np.nan)
  if groups not in STAGE2_CHANNELS or stage_channels(groups, scale) != tuple(widths):
    raise UserError(
      f"stages of {', '.join(map(str, widths))} channels in {groups} groups are no scale of the paper's Table 1"
    )
  classifier = state_dict[f"{layout.classifier}.weight"].shape
  if len(classifier) != 2 or classifier[1] != widths[-1]:
    raise UserError(f"{layout.classifier}.weight has shape {tuple(classifier)}; Stage 4 makes {widths[-1]} channels")
  model = {
    "network": "shufflenet_v1",
    "groups": groups,
    "scale": scale,
    **layout.model,
    "se": False,
    "repeats": tuple(repeats),
    "stem": 0 if stem == stem_channels(groups, scale) else stem,
    "classifier_bias": f"{layout.classifier}.bias" in state_dict,
    "num_classes": classifier[0],
  }
  return model, units
