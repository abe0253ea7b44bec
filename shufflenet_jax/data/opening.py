"""Opens the splits that a config names: to be streamed, or decoded into memory."""

import functools
from collections.abc import Sequence

from shufflenet_jax.data import sources
from shufflenet_jax.data.arrays.arrays import Arrays, check_every_class
from shufflenet_jax.data.split import Split
from shufflenet_jax.errors import UserError


def open_split(
  config, name: str, examples: str = "labels", class_names: Sequence[str] = (), every_class: bool = False
) -> Split | Arrays:
  """`sources.open_split` of a config's data, decoded if `data.in_memory` says so.

  Args:
    config: the whole config.
    name: of the split.
    examples: which annotations the examples must have, one of `stream.examples.KINDS`.
    class_names, every_class: see `sources.open_split`.

  Raises:
    UserError: see `sources.open_split`; or the pictures do not fit in memory, or cannot be decoded.
  """
  data, classes = config.data, config.model.num_classes
  if examples == "objects":
    return _open_objects(config, name, class_names)
  split = sources.open_split(data, name, classes, class_names, every_class)
  if isinstance(split, Arrays) or not data.in_memory:
    return split
  from shufflenet_jax.data.arrays import decode  # which imports TensorFlow

  field = "max_bad_eval" if name == data.eval_split else "max_bad_train"
  arrays = decode.decode(
    split,
    data.eval_resize,
    num_classes=classes,
    field=field,
    max_bad=data[field],
    warn=functools.partial(print, flush=True),
  )
  if every_class and arrays.bad_pictures:
    check_every_class(arrays)
  return arrays


def _open_objects(config, name: str, class_names: Sequence[str]) -> Split:
  data = config.data
  if data.in_memory:
    raise UserError("config.data.in_memory=True is for classification; detection reads its pictures from files")
  from shufflenet_jax.data.sources import objects  # which imports TensorFlow

  return objects.open_objects(data, name, config.model.num_classes, class_names)


def open_splits(config, examples: str = "labels") -> tuple[Split | Arrays, Split | Arrays]:
  """The splits for training and evaluation, whose classes are the same.

  Raises:
    UserError: the data are absent, empty or damaged, are other than the config says, or do not fit in memory.
  """
  train_split = open_split(config, config.data.train_split, examples, every_class=True)
  names = train_split.class_names[: train_split.dataset_classes]
  return train_split, open_split(config, config.data.eval_split, examples, names, every_class=True)
