"""Starting from another run's checkpoint: its network and picture scaling, and a new head where classes differ."""

from collections.abc import Sequence

import jax
import numpy as np

from shufflenet_jax import settings
from shufflenet_jax.checkpoint import Checkpoint, to_json
from shufflenet_jax.errors import UserError
from shufflenet_jax.train_step import TrainState

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
  """label -> the checkpoint's label, of classes it knows by the first word of their names. Numbers are no names."""
  known = {name.split()[0]: label for label, name in enumerate(pretrained.class_names) if not name.isdecimal()}
  return {i: known[name.split()[0]] for i, name in enumerate(class_names) if name.split()[0] in known}


def start_from(pretrained: Checkpoint, state: TrainState, class_names: Sequence[str]) -> TrainState:
  """A fresh state with the checkpoint's parameters and batch statistics.

  Where the head has another number of classes, those that the checkpoint knows
  by name keep their weights, and the others begin anew.

  Raises:
    UserError: parameters besides the classifier's differ in shape.
  """
  variables = pretrained.restore_variables()
  params = dict(variables["params"])
  shapes = jax.tree.map(lambda x: x.shape, (params, state.params))
  if shapes[0]["classifier"] != shapes[1]["classifier"]:
    known = known_classes(pretrained, class_names)
    now, before = (np.array(labels, int) for labels in (list(known), list(known.values())))
    # Kernels (..., classes) and biases (classes,) alike.
    params["classifier"] = jax.tree.map(
      lambda new, old: new.at[..., now].set(old[..., before]), state.params["classifier"], params["classifier"]
    )
  if jax.tree.map(lambda x: x.shape, params) != shapes[1]:
    raise UserError(f"--config.init_from={pretrained.path}: its parameters do not have the shapes of its own config")
  return state.replace(params=params, batch_stats=variables["batch_stats"])
