"""Where examples come from: one file for each kind of source.

A new source is a file with an `open_split` that takes the arguments of the one below, and a row in `SOURCES`.
"""

import importlib
from collections.abc import Callable, Sequence

from shufflenet_jax.data.arrays.arrays import Arrays
from shufflenet_jax.data.split import Split


def _of_module(name: str) -> Callable[..., Split | Arrays]:
  """The `open_split` of a module here, imported when it is called: all but `arrays` import TensorFlow."""
  return lambda *arguments: importlib.import_module(f"{__name__}.{name}").open_split(*arguments)


# The config's data.name, without "/config" and ":version" -> how to open it. Any other name is a TFDS dataset's.
SOURCES = {"arrays": _of_module("arrays"), "digits": _of_module("digits"), "folder": _of_module("folder")}


def base_name(name: str) -> str:
  """A dataset's name without its TFDS config and version: "coco" of "coco/2017:1.1.0"."""
  return name.split("/")[0].split(":")[0]


def open_split(
  data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False
) -> Split | Arrays:
  """Opens a split of the dataset that a config names; downloads nothing.

  Args:
    data: the config's `data` section. `name` is "folder" for pictures in `data_dir/<split>/<class>/`, "arrays" for
      decoded ones in `data_dir/<split>.npz`, or the `name` or `name/config:version` of a TFDS dataset in `data_dir`
      ("": TFDS's default folder). The bundled dataset `digits` is prepared there on first use.
    split: a TFDS split expression, the name of a folder, or that of an `.npz` file without its suffix.
    num_classes: classes of the network.
    class_names: the network's, if known. The classes of a folder are matched to them by name; those of a TFDS dataset
      or of arrays must be the same.
    every_class: whether a folder or an `.npz` file must hold pictures of every class.

  Raises:
    UserError: the dataset or split is absent, empty, in another file format or not image classification, or its classes
      are not the network's.
  """
  open_source = SOURCES.get(base_name(data.name), _of_module("tfds"))
  return open_source(data, split, num_classes, class_names, every_class)
