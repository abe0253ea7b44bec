"""Tasks: what a network learns from a batch. The config's field `task` names one of `TASKS`.

A new task is a module with a subclass of `task.Task`, and a row here.
"""

from shufflenet_jax.errors import UserError
from shufflenet_jax.tasks.classification import Classification
from shufflenet_jax.tasks.forward import Forward
from shufflenet_jax.tasks.task import Task

DEFAULT = "classification"
TASKS: dict[str, type[Task]] = {DEFAULT: Classification}


def name_of(config) -> str:
  """The name of a config's task; configs of versions with a single task do not name it."""
  return config.get("task", DEFAULT)


def check_same_task(where: str, before, now, remedy: str) -> None:
  """Compares the tasks of two configs.

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


def class_of(config) -> type[Task]:
  """The class of a config's task.

  Raises:
    UserError: there is none of that name.
  """
  if name_of(config) not in TASKS:
    raise UserError(f"config.task={name_of(config)!r} is not one of {', '.join(TASKS)}")
  return TASKS[name_of(config)]


def build(model, config) -> Task:
  """A config's task for its network.

  Args:
    model: a Flax module as `build.network` returns it.
    config: the whole config.

  Raises:
    UserError: there is no task of that name.
  """
  forward = Forward(model, mean=tuple(config.data.mean), std=tuple(config.data.std))
  return class_of(config).from_config(forward, config)
