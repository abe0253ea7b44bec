"""Pictures in a folder per class."""

import difflib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from shufflenet_jax import storage
from shufflenet_jax.class_names import match
from shufflenet_jax.data import pictures
from shufflenet_jax.data.datasets import Split, check_classes, plain
from shufflenet_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def open_split(
  data_dir: str, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False
) -> Split:
  """`data_dir/<split>/<class>/.../picture`, as `datasets.open_split` describes it.

  Without `class_names` the folders' names, sorted, are the classes.
  """
  if not data_dir:
    raise UserError("--config.data.name=folder needs --config.data.data_dir=DIR, which holds a folder a split")
  root = epath.Path(data_dir)
  try:
    splits = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
  except OSError as error:
    raise UserError(f"--config.data.data_dir={data_dir} cannot be read: {error.strerror or error}") from None
  except tf.errors.OpError as error:
    raise UserError(f"--config.data.data_dir={data_dir} cannot be read: {plain(error)}") from None
  if split not in splits:
    choice = " or ".join(splits) or "none: it is empty"
    raise UserError(f"{root} has no folder {split!r}; config.data.train_split and eval_split can be {choice}")
  folder = root / split
  known = list(class_names) or sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
  if not class_names:
    check_classes(f"folder {folder}", len(known), num_classes)
  return _open(os.fspath(folder), f"{folder}", known, num_classes, every_class)


def open_folder(folder: str, class_names: Sequence[str]) -> Split:
  """Images in one folder per class, matched to classes by name, never by rank.

  A folder is a class's whole name, or its first word where that is enough (see
  `class_names.py`). A folder of some of the classes is fine.

  Args:
    folder: holds `CLASS/.../IMAGE`.
    class_names: names in label order.

  Raises:
    UserError: no such folder, a folder of no known class, or no images.
  """
  if not epath.Path(folder).is_dir():
    raise UserError(f"--data={folder} is not a folder; give one that holds a folder of images per class")
  return _open(folder, f"--data={folder}", class_names, len(class_names), every_class=False)


def _open(folder: str, called: str, class_names: Sequence[str], num_classes: int, every_class: bool) -> Split:
  root = epath.Path(folder)
  found = sorted(p.name for p in root.iterdir() if not p.name.startswith(".") and p.is_dir())
  labels = {found[i]: label for i, label in match(found, class_names).items()}
  paths, of_path, ignored, empty = [], [], [], []
  for of_class in sorted(p for p in root.iterdir() if not p.name.startswith(".")):
    if not of_class.is_dir():
      ignored.append(of_class.name)
      continue
    if of_class.name not in labels:
      near = difflib.get_close_matches(of_class.name, class_names, n=1) or list(class_names[:3])
      whose = f"the {'training data' if every_class else 'checkpoint'}; its {len(class_names)} classes"
      raise UserError(f"{of_class} is no class of {whose} are named as {near[0]!r}")
    images, others = _images(of_class, root)
    ignored += others
    if not images:
      empty.append(of_class.name)
    paths += images
    of_path += [labels[of_class.name]] * len(images)
  if not paths:
    raise UserError(f"{called} holds no images ({', '.join(IMAGE_SUFFIXES)}) in class folders")
  if every_class and len(set(of_path)) < len(class_names):
    lacking = [name for i, name in enumerate(class_names) if i not in set(of_path)]
    raise UserError(
      f"{called} has no images ({', '.join(IMAGE_SUFFIXES)}) of {len(lacking)} of its {len(class_names)} classes,"
      f" {lacking[0]!r} first; every split needs the same class folders, none empty"
    )
  path_of, label_of = np.array(paths), np.array(of_path, np.int32)

  def read(numbers, skips, takes, parallel=False):
    numbers = tf.repeat(numbers, takes)  # a chunk is one picture
    return tf.data.Dataset.from_tensor_slices((numbers, (tf.gather(path_of, numbers), tf.gather(label_of, numbers))))

  def explain(example_id):
    path = paths[example_id]
    try:
      pictures.check(storage.read_bytes(path))
    except pictures.PictureError as error:
      return f"{path} cannot be decoded ({error}); replace it or take it away"
    except OSError as error:
      return f"{path} cannot be read: {error.strerror}"
    return f"{path} could not be read, and now can"

  return Split(
    folder,
    len(paths),
    (*class_names, *map(str, range(len(class_names), num_classes))),
    len(class_names),
    np.ones(len(paths), np.int64),
    max(map(len, paths)),
    read,
    lambda record: (tf.io.read_file(record[0]), record[1]),
    explain,
    _passed_over(ignored, empty),
  )


def _images(of_class: epath.Path, root: epath.Path) -> tuple[list[str], list[str]]:
  """Paths of the pictures in a class folder and below, and of what else is there, from the root."""
  files = sorted(
    os.path.join(parent, name)
    for parent, _, names in tf.io.gfile.walk(os.fspath(of_class))  # gs:// too
    for name in names
    if not any(part.startswith(".") for part in os.path.relpath(os.path.join(parent, name), root).split(os.sep))
  )
  images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
  return images, [os.path.relpath(path, root) for path in files if not path.lower().endswith(IMAGE_SUFFIXES)]


def _passed_over(ignored: list[str], empty: list[str]) -> str:
  """`ignored: 2 files that are no images in a class folder (a.txt first)`, or ""."""
  parts = []
  if ignored:
    parts.append(f"{len(ignored)} files that are no images in a class folder ({min(ignored)} first)")
  if empty:
    parts.append(f"{len(empty)} class folders without images ({min(empty)} first)")
  return "ignored: " + "; ".join(parts) if parts else ""
