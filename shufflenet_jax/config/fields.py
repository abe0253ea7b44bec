"""The fields of a config, each declared once: its default and the values that it may have.

The defaults are the paper's ImageNet recipe (section 4) for a ShuffleNet of 1x or more; configs/imagenet.py adds what
the paper changes for other networks. The fields of a network are those of its Flax module: see `build.own_fields`.

To add a field, add a line here, or an attribute to the module. When a checkpoint from before that change is read, the
new field has its default: see `complete`.
"""

import difflib
import math
import typing
from collections.abc import Callable
from typing import Any

import ml_collections

from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build as networks


class Rule(typing.NamedTuple):
  """The values that a field may have.

  Attributes:
    holds: (the field's value, the whole config) -> whether the value is allowed.
    words: completes the sentence "config.FIELD=VALUE must be ...".
    evaluation: whether evaluation, too, depends on the field. Training checks all fields.
  """

  holds: Callable[[Any, Any], bool]
  words: str
  evaluation: bool = False


class Field(typing.NamedTuple):
  """A field of a config.

  Attributes:
    default: its default.
    rule: None if any value of the default's type is allowed.
    task: the only task whose configs have the field, or "" if all have it.
  """

  default: Any
  rule: Rule | None = None
  task: str = ""


def _at_least(least: float, **options) -> Rule:
  return Rule(lambda value, config: value >= least, f"{least} or more", **options)


def _fraction_below_1() -> Rule:
  return Rule(lambda value, config: 0 <= value < 1, "from 0 to below 1")


def _is_triple(value) -> bool:
  return len(value) == 3 and all(math.isfinite(v) for v in value)


_INT64 = Rule(lambda value, config: -(2**63) <= value < 2**63, "from -2^63 to 2^63 - 1")
_ABOVE_0 = Rule(lambda value, config: value > 0, "above 0")
_AREA = Rule(lambda value, config: 0 < value <= 1, "above 0 and at most 1")
_GROUP = Rule(lambda value, config: value >= 0, "0 (a device's images) or more")
_WARMUP = Rule(lambda value, config: 0 <= value < config.num_train_steps, "from 0 to below num_train_steps")
_RESIZE = Rule(
  lambda value, config: config.get("task") == "detection" or value >= config.data.image_size,
  "at least data.image_size",
  evaluation=True,
)
_SHORT_SIDE = Rule(lambda value, config: 0 < value <= config.data.long_side, "at most data.long_side", evaluation=True)
_LONG_SIDE = Rule(lambda value, config: value <= config.data.image_size, "at most data.image_size", evaluation=True)
_SIDES = Rule(
  lambda value, config: len(value) and all(0 < v < math.inf for v in value),
  "one or more lengths in pixels",
  evaluation=True,
)
# The detector's first stage keeps no more: `test_anchors` in tasks/detection/settings.py.
_PROPOSALS = Rule(lambda value, config: 1 <= value <= 1000, "from 1 to 1000", evaluation=True)
_CROP = Rule(lambda value, config: value in (7, 14), "14 or 7", evaluation=True)
_MEAN = Rule(lambda value, config: _is_triple(value), "three numbers, on the 0-255 scale", evaluation=True)
_STD = Rule(
  lambda value, config: _is_triple(value) and all(value), "three non-zero numbers, on the 0-255 scale", evaluation=True
)

DEFAULT_TASK = "classification"  # of configs without a `task`, from versions that had only this one

FIELDS = {
  "task": Field(DEFAULT_TASK),  # what the network learns; one of `tasks.TASKS`
  "seed": Field(0, _INT64),
  "init_from": Field(""),  # a checkpoint to fine-tune; it sets the network, and data.mean, data.std and data.antialias
  "num_train_steps": Field(300_000, _at_least(1)),
  "batch_size": Field(1024),  # over all devices
  "eval_batch_size": Field(1024),  # over all devices
  "accumulate_steps": Field(1, _at_least(1)),  # micro-batches per step, if a device's share of the batch does not fit
  "batch_norm_group": Field(0, _GROUP),  # images that share batch statistics; 0: a device's, or a micro-batch's
  "log_every_steps": Field(100, _at_least(1)),
  "eval_every_steps": Field(5_000, _at_least(1)),
  "checkpoint_every_steps": Field(1_000, _at_least(1)),
  "keep_checkpoints": Field(3, _at_least(1)),  # the newest; the best evaluated one is kept as well
  "max_skipped_steps": Field(0, _at_least(0)),  # how often a loss or gradient may be not finite; one more ends the run
  "peer_timeout_seconds": Field(60, _at_least(10)),  # a host that is silent for longer counts as lost: the run ends
  "model.num_classes": Field(1000),
  "model.dtype": Field("bfloat16"),  # of computation; parameters and batch statistics are float32
  "data.name": Field("imagenet2012"),  # any dataset of TFDS with labels or boxes; "digits"; "folder"; "arrays"
  # "folder" needs <split>/<class>/x.jpg in it, "arrays" <split>.npz, others a TFDS dataset; "": ~/tensorflow_datasets
  "data.data_dir": Field(""),
  "data.in_memory": Field(False),  # decodes all pictures once, into the devices' memory; with "arrays" always
  "data.train_split": Field("train"),  # or "train[:90%]"; for "folder": the folder's name
  "data.eval_split": Field("validation"),
  "data.image_size": Field(224, _at_least(32, evaluation=True)),  # pixels
  "data.eval_resize": Field(256, _RESIZE),  # pixels of the short side before the centre crop
  "data.min_crop_area": Field(0.08, _AREA, "classification"),  # of random crops, as a fraction of the picture
  "data.max_crop_aspect": Field(4 / 3, _at_least(1), "classification"),
  "data.flip": Field(True),  # mirrors half of the training pictures
  # scales brightness, contrast and saturation by up to 1 +- this
  "data.color_jitter": Field(0.0, _fraction_below_1(), "classification"),
  "data.antialias": Field(True),  # when pictures are made smaller, in evaluation and in the training of detectors
  "data.shuffle_bytes": Field(1 << 30, _at_least(1)),  # encoded pictures in memory, over all hosts
  "data.max_bad_train": Field(100, _at_least(0)),  # pictures that each host may skip as undecodable
  "data.max_bad_eval": Field(0, _at_least(0, evaluation=True)),  # the same in an evaluation, which reports them
  "data.mean": Field((123.675, 116.28, 103.53), _MEAN),  # RGB
  "data.std": Field((58.395, 57.12, 57.375), _STD),
  # A picture is resized to this short side, or to this long side if that makes it smaller; pixels. The square canvas
  # that it is put on has a side of image_size pixels.
  "data.short_side": Field(600, _SHORT_SIDE, "detection"),
  "data.long_side": Field(1000, _LONG_SIDE, "detection"),
  "detection.anchor_sizes": Field((64, 128, 256, 512), _SIDES, "detection"),  # pixels; each in three aspect ratios
  "detection.crop": Field(14, _CROP, "detection"),  # positions per side that a proposal is cut to; 7 is faster
  "detection.train_statistics": Field(False, None, "detection"),  # of batch norm; set it to train without init_from
  "detection.rois": Field(128, _at_least(4), "detection"),  # proposals of a picture that the head is trained on
  "detection.proposals": Field(300, _PROPOSALS, "detection"),  # the same, in evaluation
  "optimizer.learning_rate": Field(0.5, _ABOVE_0),  # falls linearly to 0
  "optimizer.warmup_steps": Field(0, _WARMUP),
  "optimizer.momentum": Field(0.9, _fraction_below_1()),
  "optimizer.weight_decay": Field(4e-5, _at_least(0)),
  "optimizer.decay": Field("kernels"),  # which parameters decay: "kernels" (not biases and norms) or "all"
  "optimizer.label_smoothing": Field(0.0, _fraction_below_1(), "classification"),
}


def complete(values: dict[str, Any]) -> dict[str, Any]:
  """Brings the config of an earlier version up to date.

  Fields that it lacks get their defaults, fields of other tasks are removed, and values now renamed are replaced.

  Args:
    values: the config of a checkpoint, as nested dicts. Not changed.

  Raises:
    UserError: the checkpoint is so old that its parameters are in another order, or it names no network.
  """
  model = values.get("model", {})
  network = model.get("network")
  if network is None:
    raise UserError("config.model has no field network: it does not say which network the checkpoint is of")
  if network == "shufflenet_v1" and "lowering" not in model:
    raise UserError("config.model has no field lowering: the checkpoint is of a version with another order of channels")
  task = values.get("task", DEFAULT_TASK)
  defaults = _defaults(network, task)
  completed = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
  for name, field in FIELDS.items():  # earlier versions gave detectors some fields that only classification uses
    section, _, last = name.rpartition(".")
    if field.task not in ("", task):
      completed.get(section, {}).pop(last, None)
  for name, default in defaults.items():
    section, _, field = name.rpartition(".")
    (completed.setdefault(section, {}) if section else completed).setdefault(field, default)
  if completed["model"].get("lowering") == "split":
    completed["model"]["lowering"] = "planes"  # which replaced it; the parameters are the same
  return completed


def of_task(task: str) -> dict[str, Field]:
  """The fields of a config for a task, without those of the network."""
  return {name: field for name, field in FIELDS.items() if field.task in ("", task)}


def _defaults(network: str, task: str) -> dict[str, Any]:
  """Dotted name -> default, of all fields of a config for a network and a task."""
  own = networks.own_fields(network) if network in networks.NETWORKS else {}
  return {name: field.default for name, field in of_task(task).items()} | {f"model.{name}": own[name] for name in own}


def check_names(config: ml_collections.ConfigDict) -> None:
  """Checks that a config file's config has every field and no other.

  Raises:
    UserError: the network is unknown, or a field is missing or unknown. The message names the first of these.
  """
  section = config.get("model")
  network = section.get("network") if isinstance(section, ml_collections.ConfigDict) else None
  if network not in networks.NETWORKS:
    raise UserError(f"config.model.network={network!r} is not one of {', '.join(networks.NETWORKS)}")
  task = config.get("task", DEFAULT_TASK)
  expected, present = {"model.network", *_defaults(network, task)}, set(names(config))
  for name in sorted(present - expected):
    if name in FIELDS:
      raise UserError(of_another_task(name, task))
    near = difflib.get_close_matches(name, expected - present or expected, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"config.{name} is not a field of a config for {network}{hint}")
  for name in sorted(expected - present):
    raise UserError(f"config.{name} is missing; begin with fields.default_config(), as configs/imagenet.py does")


def of_another_task(name: str, task: str) -> str:
  """The message for a field that exists, but not for this task."""
  return f"config.{name} is for {FIELDS[name].task}; this config has task={task}"


def names(config: ml_collections.ConfigDict, prefix: str = ""):
  """The dotted names of a config's fields, without its sections."""
  for name in config:
    if isinstance(config[name], ml_collections.ConfigDict):
      yield from names(config[name], f"{prefix}{name}.")
    else:
      yield prefix + name


def default_config(network: str = "shufflenet_v1", task: str = DEFAULT_TASK, **own: Any) -> ml_collections.ConfigDict:
  """The default config for one of `build.NETWORKS` and a task, except for the fields of `model` that `own` gives."""
  model = {"network": network, **networks.own_fields(network)}
  config = ml_collections.ConfigDict(complete({"task": task, "model": model}))
  config.model.update(own)
  return config
