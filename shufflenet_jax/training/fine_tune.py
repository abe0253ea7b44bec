"""Starting from another run's checkpoint: its network, its weights and its `PICTURE_FIELDS` (`mean`, `std`, ...)."""

from collections.abc import Sequence

import jax

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints.checkpoint import Checkpoint, to_json
from shufflenet_jax.config import settings
from shufflenet_jax.errors import UserError
from shufflenet_jax.tasks.task import Task
from shufflenet_jax.training.step import TrainState

# Fields of `data` that the pretrained weights depend on.
PICTURE_FIELDS = ("mean", "std", "antialias")


def adopt(pretrained: Checkpoint, config) -> dict[str, str]:
  """Sets the config's network and `PICTURE_FIELDS` to the checkpoint's.

  The config's own values are replaced, whether a config file or a flag set them, because the weights fit no other
  network. The config keeps the fields that belong to its task (such as `num_classes`) and those that only determine how
  the network is computed.

  Returns:
    field -> `before -> now`, of the fields whose values were replaced.
  """
  before = to_json(config)
  own_fields = (*tasks.class_of(config).own_model_fields, *settings.COMPUTE_FIELDS)
  own = {k: config.model[k] for k in own_fields if k in config.model}
  with config.unlocked():
    config.model = pretrained.config.model.to_dict() | own
  for field in PICTURE_FIELDS:
    config.data[field] = pretrained.config.data[field]
  if tasks.name_of(pretrained.config) == tasks.name_of(config):
    for section, field in (name.split(".") for name in tasks.class_of(config).network_fields):
      config[section][field] = pretrained.config[section][field]
  return settings.differences(before, to_json(config))


def start_from(pretrained: Checkpoint, state: TrainState, task: Task, class_names: Sequence[str]) -> TrainState:
  """A fresh state with the checkpoint's parameters and batch statistics.

  The task adapts the parameters to the data. If the checkpoint is of another task, the task's `head` stays fresh,
  and the other task's is left out.

  Args:
    pretrained: the checkpoint.
    state: freshly initialised.
    task: what will be learned.
    class_names: of the data, in label order.

  Raises:
    UserError: the parameters differ in shape from those of the network and task of the config.
  """
  variables = pretrained.restore_variables()
  if _is_of(pretrained, task):
    params = task.adapt_params(variables["params"], state.params, pretrained.class_names, class_names)
  else:
    kept = variables["params"].keys() - set(task.head)
    params = {name: variables["params"][name] if name in kept else fresh for name, fresh in state.params.items()}
  if jax.tree.map(lambda x: x.shape, params) != jax.tree.map(lambda x: x.shape, state.params):
    raise UserError(
      f"--config.init_from={pretrained.path}: its parameters do not have the shapes that this config needs"
    )
  return state.replace(params=params, batch_stats=variables["batch_stats"])


def describe(pretrained: Checkpoint, task: Task, class_names: Sequence[str], dataset_classes: int) -> str:
  """One line on what `start_from` keeps.

  Args:
    pretrained, task, class_names: see `start_from`.
    dataset_classes: how many of `class_names`, from the first, are classes of the data; the rest only fill up the
      outputs of the network.
  """
  if _is_of(pretrained, task):
    return task.describe_adaptation(pretrained.path, pretrained.class_names, class_names, dataset_classes)
  head, other = " and ".join(task.head), tasks.name_of(pretrained.config)
  starts = "starts" if len(task.head) == 1 else "start"
  return f"{pretrained.path} is of another task ({other}): {head} {starts} from new weights, the rest is kept"


def _is_of(pretrained: Checkpoint, task: Task) -> bool:
  return tasks.TASKS.get(tasks.name_of(pretrained.config)) is type(task)
