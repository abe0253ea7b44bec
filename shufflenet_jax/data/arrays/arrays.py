"""`Arrays`: a split as decoded pictures and their labels."""

import dataclasses
import math
import os

import jax
import numpy as np

from shufflenet_jax.errors import UserError

MEMORY_SHARE = 0.5  # of a device's memory, or of the machine's, that the pictures of one split may take


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


def check_fits(name: str, shape: tuple[int, ...]) -> None:
  """Raises a UserError if the pictures of a split, uint8 of this shape, take more than `MEMORY_SHARE` of the memory.

  Every device holds a copy. CPU devices keep theirs in the machine's memory, which also holds the host's copy.
  """
  devices = jax.local_devices()
  limit = (devices[0].memory_stats() or {}).get("bytes_limit")
  copies = 1 if limit else 1 + len(devices)
  limit = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  size = math.prod(shape) * copies
  if size > MEMORY_SHARE * limit:
    n, height, width, _ = shape
    raise UserError(
      f"{name} does not fit in memory: {n:,} pictures of {height}x{width} pixels take {size / 1e9:.1f} GB, more than"
      f" half of {limit / 1e9:.1f} GB; set --config.data.in_memory=false"
    )


def check_every_class(arrays: Arrays) -> None:
  """Raises a UserError if there is no picture of one of the dataset's classes."""
  missing = sorted(set(range(arrays.dataset_classes)) - set(np.unique(arrays.labels).tolist()))
  if missing:
    raise UserError(f"{arrays.name} has no picture of class {arrays.class_names[missing[0]]!r}")
