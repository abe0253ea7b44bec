"""Where examples come from: one file for each kind of source.

A new source is a file with an `open_split` that takes the arguments of the one below, and a row in `SOURCES`.
"""

from collections.abc import Callable, Sequence

from shufflenet_jax.data.sources import digits, folder, tfds
from shufflenet_jax.data.split import Split

# The config's data.name, without "/config" and ":version" -> how to open it. Any other name is a TFDS dataset's.
SOURCES: dict[str, Callable[..., Split]] = {
  "digits": digits.open_split,
  "folder": folder.open_split,
}


def open_split(data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False) -> Split:
  """Opens a split of the dataset that a config names; downloads nothing.

  Args:
    data: the config's `data` section. `name` is "folder" for pictures in `data_dir/<split>/<class>/`, or the
      `name` or `name/config:version` of a TFDS dataset in `data_dir` ("": TFDS's default folder). The bundled dataset
      `digits` is prepared there on first use.
    split: a TFDS split expression, or the name of a folder.
    num_classes: classes of the network.
    class_names: the network's, if known. The classes of a folder are matched to them by name; those of a TFDS dataset
      must be the same.
    every_class: whether a folder must hold pictures of every class.

  Raises:
    UserError: the dataset or split is absent, empty, in another file format or not image classification, or its classes
      are not the network's.
  """
  open_source = SOURCES.get(data.name.split("/")[0].split(":")[0], tfds.open_split)
  return open_source(data, split, num_classes, class_names, every_class)
