"""Fine-tuning a classifier: which rows of the last layer are kept, matched by the names of the classes."""

from collections.abc import Sequence

import jax
import numpy as np

from shufflenet_jax.data import class_names


def known_classes(names_before: Sequence[str], names_now: Sequence[str]) -> dict[int, int]:
  """label now -> label before, for the classes that have a name on both sides (see `data/class_names.py`).

  A number is not a name. But if both sides have only numbers, and the same number of classes, they are taken to be the
  same classes.
  """
  if _only_numbers(names_before, names_now):
    return {i: i for i in range(len(names_now))}
  matches = class_names.match(names_now, names_before)
  return {i: label for i, label in matches.items() if not class_names.is_number(names_now[i])}


def _only_numbers(names_before: Sequence[str], names_now: Sequence[str]) -> bool:
  return len(names_before) == len(names_now) and all(map(class_names.is_number, (*names_before, *names_now)))


def adapt_classifier(params, fresh, names_before: Sequence[str], names_now: Sequence[str]) -> dict:
  """`params` with a `classifier` for the classes of `names_now`; see `Task.adapt_params`."""
  known = known_classes(names_before, names_now)
  return {**params, "classifier": copy_classes(fresh["classifier"], params["classifier"], known)}


def copy_classes(fresh, old, known: dict[int, int]):
  """Trees of arrays (..., classes): kernels and biases alike.

  Args:
    fresh: freshly initialised.
    old: the checkpoint's, maybe with another number of classes.
    known: label now -> label before.

  Returns:
    `fresh` with the values of known classes from `old`.
  """
  now, before = (np.array(labels, int) for labels in (list(known), list(known.values())))
  return jax.tree.map(lambda new, old: new.at[..., now].set(old[..., before]), fresh, old)


def describe(where: str, names_before: Sequence[str], names_now: Sequence[str], dataset_classes: int) -> str:
  """One line on what becomes of the last layer; see `Task.describe_adaptation`."""
  if _only_numbers(names_before, names_now):
    return f"the classes have no names, and {where} has as many: its last layer is kept as it is"
  known = sum(i < dataset_classes for i in known_classes(names_before, names_now))
  if not known:
    return f"{where} knows none of the {dataset_classes} classes by name: the last layer is initialised anew"
  which = "all" if known == dataset_classes else f"{known} of"
  others = "" if known == len(names_now) else ", the others are initialised anew"
  return f"{where} knows {which} {dataset_classes} classes by name: their rows of the last layer are kept{others}"
