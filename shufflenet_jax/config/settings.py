"""Checks of a config, comparisons between configs, and what the training step takes from one."""

import math
from typing import Any

from flax import traverse_util

from shufflenet_jax.config import fields
from shufflenet_jax.errors import UserError

# Fields of `model` that determine how a network is computed, but not which network it is.
COMPUTE_FIELDS = ("dtype", "lowering")


def check(config, training: bool) -> None:
  """Checks every field that evaluation depends on, and with `training` all others too.

  Raises:
    UserError: a value is out of range; or a flag changed the task, and the config lacks a field of that task. The
      message names the first such field, its value and its range.
  """
  task = config.get("task", fields.DEFAULT_TASK)
  present = set(fields.names(config))
  for name, field in fields.of_task(task).items():
    if field.task and name not in present:
      begin = "configs/imagenet.py" if task == fields.DEFAULT_TASK else "configs/boxes.py or configs/coco.py"
      raise UserError(f"config.task={task} needs the field {name}; begin with {begin}")
  for name, field in fields.of_task(task).items():
    if field.rule and (training or field.rule.evaluation):
      _check(config, name)


def check_image_size(config) -> None:
  """Raises a UserError if `data.image_size` is out of range."""
  _check(config, "data.image_size")


def _check(config, name: str) -> None:
  rule, value = fields.FIELDS[name].rule, config
  for part in name.split("."):
    value = value[part]
  if isinstance(value, float) and not math.isfinite(value):
    raise UserError(f"config.{name}={value} must be a finite number")
  if not rule.holds(value, config):
    raise UserError(f"config.{name}={value} must be {rule.words}")


def step_arguments(config, micro_batches: int) -> dict:
  """The keyword arguments of `training.step.train_step` that a config sets, besides task, optimizer and schedule."""
  return {
    "accumulate_steps": micro_batches,
    "seed": config.seed,
    "max_skipped_steps": config.max_skipped_steps,
  }


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
  """The fields in which two configs, as JSON values, differ: dotted name -> `before -> now`."""
  before, now = (traverse_util.flatten_dict(values, sep=".") for values in (before, now))
  return {k: f"{before.get(k)} -> {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k)}


def check_same_network(where: str, before: dict[str, Any], now: dict[str, Any], remedy: str) -> None:
  """Compares two `model` sections, as JSON values.

  Args:
    where: the checkpoint that has the first section, for the message.
    before: its `model` section.
    now: the `model` section of the config.
    remedy: the end of the message.

  Raises:
    UserError: their networks have different parameters.
  """
  changed = {k: v for k, v in differences(before, now).items() if k not in COMPUTE_FIELDS}
  if changed:
    listed = ", ".join(f"model.{k}: {v}" for k, v in changed.items())
    raise UserError(f"{where} is of another network ({listed}); {remedy}")
