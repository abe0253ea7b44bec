"""What the fields of a config may be: looked at before anything is read or written."""

import math

from shufflenet_jax.errors import UserError


def _triple(value) -> bool:
  return len(value) == 3 and all(math.isfinite(v) for v in value)


# field -> (what holds for a good value and the whole config, in words)
_TRAINING = {
  "num_train_steps": (lambda v, c: v >= 1, "1 or more"),
  "log_every_steps": (lambda v, c: v >= 1, "1 or more"),
  "eval_every_steps": (lambda v, c: v >= 1, "1 or more"),
  "checkpoint_every_steps": (lambda v, c: v >= 1, "1 or more"),
  "keep_checkpoints": (lambda v, c: v >= 1, "1 or more"),
  "accumulate_steps": (lambda v, c: v >= 1, "1 or more"),
  "batch_norm_group": (lambda v, c: v >= 0, "0 (a device's images) or more"),
  "max_skipped_steps": (lambda v, c: v >= 0, "0 or more"),
  "peer_timeout_seconds": (lambda v, c: v >= 10, "10 or more"),
  "data.min_crop_area": (lambda v, c: 0 < v <= 1, "above 0 and at most 1"),
  "data.max_crop_aspect": (lambda v, c: v >= 1, "1 or more"),
  "data.color_jitter": (lambda v, c: 0 <= v < 1, "from 0 to below 1"),
  "data.shuffle_bytes": (lambda v, c: v >= 1, "1 or more"),
  "data.max_bad_train": (lambda v, c: v >= 0, "0 or more"),
  "optimizer.learning_rate": (lambda v, c: v > 0, "above 0"),
  "optimizer.momentum": (lambda v, c: 0 <= v < 1, "from 0 to below 1"),
  "optimizer.weight_decay": (lambda v, c: v >= 0, "0 or more"),
  "optimizer.label_smoothing": (lambda v, c: 0 <= v < 1, "from 0 to below 1"),
  "optimizer.warmup_steps": (lambda v, c: 0 <= v < c.num_train_steps, "from 0 to below num_train_steps"),
}
_READING = {
  "data.image_size": (lambda v, c: v >= 32, "32 or more"),
  "data.eval_resize": (lambda v, c: v >= c.data.image_size, "at least data.image_size"),
  "data.max_bad_eval": (lambda v, c: v >= 0, "0 or more"),
  "data.mean": (lambda v, c: _triple(v), "three numbers, on the 0-255 scale"),
  "data.std": (lambda v, c: _triple(v) and all(v), "three numbers but 0, on the 0-255 scale"),
}


def check(config, training: bool) -> None:
  """Raises a UserError for the first field that is out of range; `training` looks at those of training too."""
  _check(config, _TRAINING | _READING if training else _READING)


def check_image_size(config) -> None:
  """Raises a UserError where `data.image_size` is below what any network takes."""
  _check(config, {"data.image_size": _READING["data.image_size"]})


def _check(config, rules) -> None:
  for field, (holds, words) in rules.items():
    value = config
    for name in field.split("."):
      value = value[name]
    if not holds(value, config):
      raise UserError(f"config.{field}={value} must be {words}")


def step_arguments(config, micro_batches: int) -> dict:
  """The keyword arguments of `training.step.train_step` that a config sets, besides task, optimizer and schedule."""
  return {
    "accumulate_steps": micro_batches,
    "seed": config.seed,
    "max_skipped_steps": config.max_skipped_steps,
  }


def flat(values: dict, prefix: str = "") -> dict:
  """{"a": {"b": 1}} -> {"a.b": 1}."""
  result = {}
  for key, value in values.items():
    result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
  return result


def differences(before: dict, now: dict) -> dict[str, str]:
  """field -> `before -> now` of what differs between two configs as JSON values."""
  before, now = flat(before), flat(now)
  return {k: f"{before.get(k)} -> {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k)}


# Fields of `model` that say how a network is computed, not which one it is.
COMPUTE_FIELDS = ("dtype", "lowering")


def check_same_network(where: str, before: dict, now: dict, remedy: str) -> None:
  """Raises a UserError unless two `model` sections, as JSON values, describe the same parameters."""
  changed = {k: v for k, v in differences(before, now).items() if k not in COMPUTE_FIELDS}
  if changed:
    fields = ", ".join(f"model.{k}: {v}" for k, v in changed.items())
    raise UserError(f"{where} is of another network ({fields}); {remedy}")
