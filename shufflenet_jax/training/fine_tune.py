"""Starting from another run's checkpoint: its network and picture scaling, and its classifier's rows by class name."""

from collections.abc import Sequence

import jax
import numpy as np

from shufflenet_jax.checkpoints.checkpoint import Checkpoint, to_json
from shufflenet_jax.config import settings
from shufflenet_jax.data import class_names as names
from shufflenet_jax.errors import UserError
from shufflenet_jax.training.train_step import TrainState

# What the pretrained weights expect of pictures.
PICTURE_FIELDS = ("mean", "std", "antialias")


def adopt(pretrained: Checkpoint, config) -> dict[str, str]:
  """Sets the config's network and picture scaling to the checkpoint's; `num_classes` and how it is computed stay.

  What a config or flag says otherwise is set aside, whether a default or not:
  the weights fit no other network. The caller tells the user of it.

  Returns:
    field -> `before -> now` of what was set aside.
  """
  before = to_json(config)
  own = {k: config.model[k] for k in ("num_classes", *settings.COMPUTE_FIELDS) if k in config.model}
  with config.unlocked():
    config.model = pretrained.config.model.to_dict() | own
  for field in PICTURE_FIELDS:
    config.data[field] = pretrained.config.data[field]
  return settings.differences(before, to_json(config))


def known_classes(pretrained: Checkpoint, class_names: Sequence[str]) -> dict[int, int]:
  """label -> the checkpoint's label, of the classes that it knows by name (see `class_names.py`).

  Numbers are no names. Where there are only numbers on both sides, and as many, they are taken for the same classes.
  """
  if _only_numbers(pretrained, class_names):
    return {i: i for i in range(len(class_names))}
  found = names.match(class_names, pretrained.class_names)
  return {i: label for i, label in found.items() if not names.is_number(class_names[i])}


def _only_numbers(pretrained: Checkpoint, class_names: Sequence[str]) -> bool:
  is_as_many = len(pretrained.class_names) == len(class_names)
  return is_as_many and all(map(names.is_number, (*pretrained.class_names, *class_names)))


def describe(pretrained: Checkpoint, class_names: Sequence[str], dataset_classes: int) -> str:
  """One line on what becomes of the last layer.

  Args:
    pretrained: what the run starts from.
    class_names: of the network, in label order.
    dataset_classes: how many of them are the data's; those beyond have numbers for names.
  """
  if _only_numbers(pretrained, class_names):
    return f"the classes have no names, and {pretrained.path} has as many: its last layer is kept as it is"
  known = sum(i < dataset_classes for i in known_classes(pretrained, class_names))
  if not known:
    return f"none of the {dataset_classes} classes is known to {pretrained.path} by name: the last layer begins anew"
  which = "all" if known == dataset_classes else f"{known} of"
  others = "" if known == len(class_names) else ", the others begin anew"
  return (
    f"{which} {dataset_classes} classes are known to {pretrained.path} by name: their rows of the last layer are"
    f" kept{others}"
  )


def start_from(pretrained: Checkpoint, state: TrainState, class_names: Sequence[str]) -> TrainState:
  """A fresh state with the checkpoint's parameters and batch statistics.

  In the classifier, the classes that the checkpoint knows by name get its
  weights, whatever their order and number; the others begin anew.

  Raises:
    UserError: parameters besides the classifier's differ in shape.
  """
  variables = pretrained.restore_variables()
  params = dict(variables["params"])
  known = known_classes(pretrained, class_names)
  now, before = (np.array(labels, int) for labels in (list(known), list(known.values())))
  # Kernels (..., classes) and biases (classes,) alike.
  params["classifier"] = jax.tree.map(
    lambda new, old: new.at[..., now].set(old[..., before]), state.params["classifier"], params["classifier"]
  )
  if jax.tree.map(lambda x: x.shape, params) != jax.tree.map(lambda x: x.shape, state.params):
    raise UserError(f"--config.init_from={pretrained.path}: its parameters do not have the shapes of its own config")
  return state.replace(params=params, batch_stats=variables["batch_stats"])
