"""What any source of examples gives."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
  """Examples of an image-classification dataset, in chunks that can be read in any order and from any place on.

  Attributes:
    name: for messages, for instance `digits train[:90%]`.
    where: the folder that holds its files.
    num_examples: how many there are, > 0.
    class_names: names in label order, at least one for each class of the network.
    dataset_classes: how many of them are the dataset's own.
    sizes: int64 (chunks,), examples in each; ids count from 0 through the chunks in order.
    record_bytes: mean size of a record in memory.
    read: (numbers, skips, takes, parallel) -> `tf.data.Dataset` of (id, record): of each chunk named, all int64 (n,),
      `takes` examples after `skips`. One chunk after the other, or `parallel`: several at once, in a fixed order.
    parse: record -> (encoded image, label).
    explain: id -> one line about why that example cannot be used.
    note: what the user should know of it, for instance what was passed over; "" if nothing.
  """

  name: str
  where: str
  num_examples: int
  class_names: tuple[str, ...]
  dataset_classes: int
  sizes: np.ndarray
  record_bytes: int
  read: Callable[..., tf.data.Dataset]
  parse: Callable[..., tuple[tf.Tensor, tf.Tensor]]
  explain: Callable[[int], str]
  note: str = ""


def check_classes(what: str, dataset_classes: int, num_classes: int) -> None:
  """Raises a UserError where a dataset has more classes than the network."""
  if dataset_classes > num_classes:
    raise UserError(
      f"{what} has {dataset_classes} classes, the network num_classes={num_classes};"
      f" set --config.model.num_classes={dataset_classes}"
    )
