"""`Split`: what every source of examples provides to the streams."""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import numpy as np

from shufflenet_jax.errors import UserError

if typing.TYPE_CHECKING:  # the source of pictures in arrays must work where TensorFlow is not installed
  import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Split:
  """One split of a dataset.

  Its examples lie in chunks: files, parts of files, or single pictures. Chunks can be read in any order, each from any
  example on. The id of an example is its position in the split, counted from 0 through all chunks in order.

  Attributes:
    name: for messages, for instance `digits train[:90%]`.
    folder: the folder that holds the split's files.
    num_examples: > 0.
    class_names: in label order, at least one for each class of the network.
    dataset_classes: how many of the names are the dataset's own; numbers fill up the rest.
    chunk_sizes: int64 (chunks,), the number of examples in each chunk.
    record_bytes: about how large an undecoded record is in memory.
    read: (chunks, skips, takes, parallel=False) -> `tf.data.Dataset` of (id, record). For each number in `chunks`, it
      skips `skips` examples of that chunk and yields the next `takes`; all three are int64 (n,). Chunks follow one
      another, or are interleaved in a fixed order if `parallel`.
    parse: record -> (encoded image, label), or for a dataset with boxes (encoded image, dict of padded targets), see
      `sources/objects.py`.
    explain: id -> one line on why that example cannot be used.
    note: what the user should know about the data, for instance which files were ignored; "" if nothing.
  """

  name: str
  folder: str
  num_examples: int
  class_names: tuple[str, ...]
  dataset_classes: int
  chunk_sizes: np.ndarray
  record_bytes: int
  read: Callable[..., "tf.data.Dataset"]
  parse: Callable[..., tuple["tf.Tensor", "tf.Tensor | dict[str, tf.Tensor]"]]
  explain: Callable[[int], str]
  note: str = ""

  def read_all(self, parallel: bool = False) -> "tf.data.Dataset":
    """(id, record) of every example, in the order of ids unless `parallel`."""
    chunks = np.arange(len(self.chunk_sizes), dtype=np.int64)
    return self.read(chunks, np.zeros_like(chunks), self.chunk_sizes, parallel=parallel)


def check_number_of_classes(
  description: str, dataset_classes: int, num_classes: int, class_names: Sequence[str] = ()
) -> None:
  """Compares the numbers of classes of a dataset and a network.

  Args:
    description: of the dataset, for the message.
    dataset_classes: the dataset's.
    num_classes: the network's.
    class_names: those that the dataset is to have, if they are known.

  Raises:
    UserError: the dataset has more than the network.
  """
  if dataset_classes > num_classes:
    remedy = f"set --config.model.num_classes={dataset_classes}"
    if class_names:
      remedy = f"choose a dataset of its classes: {', '.join(class_names[:3])}{', ...' if len(class_names) > 3 else ''}"
    raise UserError(f"{description} has {dataset_classes} classes, the network num_classes={num_classes}; {remedy}")


def pad_class_names(names: Sequence[str], num_classes: int) -> tuple[str, ...]:
  """The names, followed by a number for each further class of a network that has more classes than the dataset."""
  return (*names, *map(str, range(len(names), num_classes)))
