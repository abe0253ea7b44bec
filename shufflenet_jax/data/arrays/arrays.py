"""`Arrays`: a split as decoded pictures and their labels."""

import dataclasses

import numpy as np

from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arrays:
  """One split, decoded. The id of an example is its row.

  Attributes:
    name: for messages, for instance `tiny_imagenet train`.
    images: uint8 (n, h, w, 3), n > 0.
    labels: int32 (n,).
    class_names: in label order, at least one for each class of the network.
    dataset_classes: how many of the names are the dataset's own; numbers fill up the rest.
    bad_pictures: how many could not be decoded and were left out.
    note: what the user should know about the data; "" if nothing.
  """

  name: str
  images: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  dataset_classes: int
  bad_pictures: int = 0
  note: str = ""

  @property
  def num_examples(self) -> int:
    """How many examples the split has, with those that could not be decoded."""
    return len(self.images) + self.bad_pictures


def check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
  """Raises a UserError if a label is not that of a class of the network; `name` is the split's."""
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    raise UserError(
      f"label {labels[wrong[0]]} of example {wrong[0]} in {name} is out of range for num_classes={num_classes}"
    )
