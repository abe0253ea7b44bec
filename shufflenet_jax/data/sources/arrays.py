"""Pictures, labels and class names in `data_dir/<split>.npz`: the source that needs no TensorFlow.

`python -m shufflenet_jax.data.export --arrays` writes such files from any other source.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from shufflenet_jax import storage
from shufflenet_jax.data import class_names as naming
from shufflenet_jax.data.arrays.arrays import Arrays, check_every_class, check_fits, check_labels
from shufflenet_jax.data.split import check_number_of_classes, pad_class_names
from shufflenet_jax.errors import UserError

_WANTED = "images, uint8 (n, h, w, 3); labels, whole numbers (n,); class_names, text (classes,)"


def open_split(
  data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False
) -> Arrays:
  """Reads a file, whole; see `sources.open_split`."""
  path = storage.join(storage.normalize(data.data_dir, "--config.data.data_dir="), f"{split}.npz")
  try:
    encoded = storage.read_bytes(path)
  except FileNotFoundError:
    raise UserError(
      f"{path} does not exist; set --config.data.data_dir to a folder with {split}.npz, which holds {_WANTED}"
    ) from None
  images, labels, names = _contents(path, encoded)
  check_number_of_classes(path, len(names), num_classes, class_names)
  if class_names and (label := naming.first_difference(names, class_names)) is not None:
    raise UserError(f"{path} has other classes than the network: its class {label} is {names[label]!r}")
  arrays = Arrays(path, images, labels, pad_class_names(names, num_classes), len(names))
  if every_class:
    check_every_class(arrays)
  return arrays


def save(path: str, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
  """Writes a file that `open_split` reads; uncompressed, because it is read more often than it is moved."""
  file = io.BytesIO()
  np.savez(file, images=images, labels=labels, class_names=np.array(class_names, dtype=str))
  storage.write_bytes(path, file.getvalue())


def _contents(path: str, encoded: bytes) -> tuple[np.ndarray, np.ndarray, list[str]]:
  try:
    with zipfile.ZipFile(io.BytesIO(encoded)) as members:  # np.load would accept other files, and unpickle
      images, labels, names = (_member(members, name) for name in ("images", "labels", "class_names"))
  except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UserError(f"{path} cannot be read ({error}); it has to hold {_WANTED}") from None
  whole = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] == 3 and images.size > 0
  whole = whole and labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
  if not (whole and names.ndim == 1 and names.dtype.kind == "U"):
    given = {"images": images, "labels": labels, "class_names": names}
    shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in given.items())
    raise UserError(f"{path} holds {shapes}; it has to hold {_WANTED}")
  check_labels(path, labels, len(names))
  check_fits(path, images.shape)
  return images, labels.astype(np.int32), names.tolist()


def _member(members: zipfile.ZipFile, name: str) -> np.ndarray:
  with members.open(f"{name}.npy") as file:
    return np.lib.format.read_array(file, allow_pickle=False)
