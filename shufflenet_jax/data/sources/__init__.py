"""Where examples come from: one file for each kind of source.

A new source is a file with an `open_split` that takes the arguments of the one below, and a row in `SOURCES`.
"""

import importlib
from collections.abc import Sequence

from shufflenet_jax.data.arrays.arrays import Arrays
from shufflenet_jax.data.split import Split

# The config's data.name, without "/config" and ":version" -> the module here that opens it. Any other name is a TFDS
# dataset's. Only the module that is needed is imported: all but `arrays` import TensorFlow.
SOURCES = {"arrays": "arrays", "digits": "digits", "folder": "folder"}


def open_split(
  data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False
) -> Split | Arrays:
  """Opens a split of the dataset that a config names; downloads nothing.

  Args:
    data: the config's `data` section. `name` is "folder" for pictures in `data_dir/<split>/<class>/`, "arrays" for
      decoded ones in `data_dir/<split>.npz`, or the `name` or `name/config:version` of a TFDS dataset in `data_dir`
      ("": TFDS's default folder). The bundled dataset `digits` is prepared there on first use.
    split: a TFDS split expression, or the name of a folder.
    num_classes: classes of the network.
    class_names: the network's, if known. The classes of a folder are matched to them by name; those of a TFDS dataset
      must be the same.
    every_class: whether a folder must hold pictures of every class.

  Raises:
    UserError: the dataset or split is absent, empty, in another file format or not image classification, or its classes
      are not the network's.
  """
  module = SOURCES.get(data.name.split("/")[0].split(":")[0], "tfds")
  source = importlib.import_module(f"{__name__}.{module}")
  return source.open_split(data, split, num_classes, class_names, every_class)
