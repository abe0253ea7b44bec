"""--stage_data: copies the dataset into each host's memory before training, so that the bucket is read only once."""

from __future__ import annotations

from launch import names
from shufflenet_jax.errors import UserError

MOUNT = "/dev/shm"  # a file system in memory; by default it holds half as much as the machine has
FOLDER = f"{MOUNT}/shufflenet_jax_dataset"


def split(training: list[str]) -> tuple[list[str], list[str]]:
  """(arguments of `python -m shufflenet_jax.data.stage`, arguments of training, which then reads the copy).

  Args:
    training: arguments of `python -m shufflenet_jax.train`, which name the dataset's folder.

  Raises:
    UserError: they do not.
  """
  if not names.flag_value(training, "config.data.data_dir"):
    raise UserError(
      "--stage_data copies a prepared dataset: give --config.data.data_dir=gs://BUCKET/tensorflow_datasets after --"
    )
  return [*_of_config(training), f"--to={FOLDER}"], [*training, f"--config.data.data_dir={FOLDER}"]


def _of_config(arguments: list[str]) -> list[str]:
  """The arguments that give the config and its fields, as --config=FILE, --config FILE or --noconfig.FIELD."""
  found, takes_next = [], False
  for argument in arguments:
    name, equals, _ = argument.lstrip("-").partition("=")
    is_config = argument.startswith("-") and (name == "config" or name.startswith(("config.", "noconfig.")))
    if is_config or (takes_next and not argument.startswith("--")):
      found.append(argument)
    takes_next = is_config and not equals
  return found
