"""The arguments of the shipped configs: a network, and its fields, as in `configs/imagenet.py:scale=0.5,groups=8`."""

import ast
from typing import Any

import ml_collections

from shufflenet_jax.config import fields
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build as networks


def parse(arguments: str) -> dict[str, str]:
  """`"scale=0.5,groups=8"` -> `{"scale": "0.5", "groups": "8"}`."""
  return dict(argument.partition("=")[::2] for argument in arguments.split(",") if argument)


def config_for(arguments: dict[str, str], task: str = fields.DEFAULT_TASK) -> ml_collections.ConfigDict:
  """The default config for a task and a network; `arguments` hold the network's name (`network`) and any of its fields.

  Raises:
    UserError: no such network or field, or a value of another type.
  """
  given = dict(arguments)
  network = given.pop("network", "shufflenet_v1")
  if network not in networks.NETWORKS:
    raise UserError(f"network={network} is not one of {', '.join(networks.NETWORKS)}")
  own = networks.own_fields(network)
  for field in given:
    if field not in own:
      hint = "; --config.batch_size sets the batch" if field == "batch" else ""
      raise UserError(f"network {network} takes no argument {field!r}; it takes {', '.join(own) or 'none'}{hint}")
  values = {field: _value(field, text, own[field]) for field, text in given.items()}
  return fields.default_config(network, task, **values)


def detector_config_for(arguments: dict[str, str]) -> ml_collections.ConfigDict:
  """The default config of a detector: `arguments` are `backbone`, and any of that network's own fields.

  Raises:
    UserError: no such backbone or field, or a value of another type.
  """
  given = dict(arguments)
  backbone = given.pop("backbone", networks.BACKBONES[0])
  if backbone not in networks.BACKBONES:
    raise UserError(f"backbone={backbone} is not one of {', '.join(networks.BACKBONES)}")
  if "network" in given:
    raise UserError(f"network={given['network']}: the network of a detector is called backbone={given['network']}")
  return config_for({"network": backbone} | given, task="detection")


def _value(field: str, text: str, default: Any) -> Any:
  """Converts the text of an argument to the type of its default."""
  kind = type(default)
  try:
    value = text if kind is str else ast.literal_eval(text)
  except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
    value = None
  if kind is float and type(value) is int:
    try:
      return float(value)
    except OverflowError:
      value = None
  if type(value) is not kind:
    raise UserError(f"{field}={text} is not a value like {default!r}")
  return value
