"""Tasks: what a network learns from a batch. The config's field `task` names one of `TASKS`.

A new task is a module with a subclass of `task.Task`, and a row here.
"""

import typing

from shufflenet_jax.counting.detector import DetectorCount
from shufflenet_jax.counting.multiply_adds import NetworkCount
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build as networks
from shufflenet_jax.tasks.classification import Classification
from shufflenet_jax.tasks.detection.task import Detection
from shufflenet_jax.tasks.forward import Forward
from shufflenet_jax.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classification": Classification, "detection": Detection}


def name_of(config) -> str:
  """The name of a config's task; configs of versions with a single task do not name it."""
  from shufflenet_jax.config import fields  # here, because a training step needs no configs, nor ml_collections

  return config.get("task", fields.DEFAULT_TASK)


def check_same_task(where: str, before, now, remedy: str) -> None:
  """Compares the tasks of two configs, and the fields that the parameters of a task depend on.

  Args:
    where: the checkpoint that has the first config, for the message.
    before: its config.
    now: the config that is to be used with it.
    remedy: the end of the message.

  Raises:
    UserError: they are different.
  """
  if name_of(before) != name_of(now):
    raise UserError(f"{where} is of another task ({name_of(before)} -> {name_of(now)}); {remedy}")
  for name in class_of(now).network_fields:
    section, field = name.split(".")
    if (was := list(before[section][field])) != (values := list(now[section][field])):
      raise UserError(f"{where} has other values of {name} ({was} -> {values}); {remedy}")


def class_of(config) -> type[Task]:
  """The class of a config's task.

  Raises:
    UserError: there is none of that name.
  """
  if name_of(config) not in TASKS:
    raise UserError(f"config.task={name_of(config)!r} is not one of {', '.join(TASKS)}")
  return TASKS[name_of(config)]


def network(config):
  """The Flax module that a config trains, see `Task.network`.

  Raises:
    UserError: a value that the network or the task does not accept, or an unknown task.
  """
  return class_of(config).network(config)


def network_for_images(config) -> tuple[typing.Any, NetworkCount | DetectorCount]:
  """`network`, checked to accept the config's images, and its multiply-adds for one of them.

  Raises:
    UserError: as `network`, or the images are too small.
  """
  model = network(config)
  return model, networks.count_for_images(model, config, class_of(config).count)


def build(model, config) -> Task:
  """A config's task for its network.

  Args:
    model: a Flax module as `network` returns it.
    config: the whole config.

  Raises:
    UserError: there is no task of that name.
  """
  forward = Forward(model, mean=tuple(config.data.mean), std=tuple(config.data.std))
  return class_of(config).from_config(forward, config)
