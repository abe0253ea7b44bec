"""Pictures in a folder per class."""

import difflib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from shufflenet_jax import storage
from shufflenet_jax.data import pictures
from shufflenet_jax.data.class_names import match
from shufflenet_jax.data.split import Split, check_classes
from shufflenet_jax.errors import RunFailed, UserError


def open_split(
  data_dir: str, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False
) -> Split:
  """`data_dir/<split>/<class>/.../picture`, as `datasets.open_split` describes it.

  Without `class_names` the folders' names, sorted, are the classes.
  """
  if not data_dir:
    raise UserError("--config.data.name=folder needs --config.data.data_dir=DIR, which holds a folder a split")
  root = storage.normalize(data_dir, "--config.data.data_dir=")
  try:
    splits = folders_in(root)
  except FileNotFoundError as error:
    raise UserError(f"--config.data.data_dir={data_dir} cannot be read: {error.strerror}") from None
  if split not in splits:
    choice = " or ".join(map(readable, splits)) or "none: it is empty"
    raise UserError(f"{root} has no folder {split!r}; config.data.train_split and eval_split can be {choice}")
  folder = storage.join(root, split)
  known = list(class_names) or folders_in(folder)
  if not class_names:
    check_classes(f"folder {folder}", len(known), num_classes)
  return _open(folder, folder, known, num_classes, every_class)


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
  path = storage.normalize(folder, "--data=")
  if not storage.is_folder(path):
    raise UserError(f"--data={folder} is not a folder; give one that holds a folder of images per class")
  return _open(path, f"--data={folder}", class_names, len(class_names), every_class=False)


def folders_in(folder: str) -> list[str]:
  """Names of the folders in a folder that are not hidden, sorted."""
  return [name for name, is_folder in storage.list_folder(folder) if is_folder and not name.startswith(".")]


def is_hidden(path: str) -> bool:
  """Whether a path from some folder on has a part that begins with a dot, like what macOS adds."""
  return any(part.startswith(".") for part in path.split("/"))


def readable(path: str) -> str:
  """A path for messages, of one line: what is no text in a file's name is escaped, for instance as \\xe9."""
  text = os.fsencode(path).decode(errors="backslashreplace")
  return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _open(folder: str, called: str, class_names: Sequence[str], num_classes: int, every_class: bool) -> Split:
  of_classes = folders_in(folder)
  labels = {of_classes[i]: label for i, label in match(of_classes, class_names).items()}
  for name in of_classes:
    if name not in labels:
      near = difflib.get_close_matches(name, class_names, n=1) or list(class_names[:3])
      whose = f"the {'training data' if every_class else 'checkpoint'}; its {len(class_names)} classes"
      raise UserError(
        f"{readable(storage.join(folder, name))} is no class of {whose} are named as {readable(near[0])!r}"
      )
  images, ignored = _images(folder)
  of_image = [name.partition("/")[0] for name in images]
  empty = sorted(set(of_classes).difference(of_image))
  paths, of_path = [storage.join(folder, name) for name in images], [labels[name] for name in of_image]
  if not paths:
    raise UserError(f"{called} holds no images ({pictures.NAMES}) in class folders")
  if every_class and len(set(of_path)) < len(class_names):
    lacking = [name for i, name in enumerate(class_names) if i not in set(of_path)]
    raise UserError(
      f"{called} has no images ({pictures.NAMES}) of {len(lacking)} of its {len(class_names)} classes,"
      f" {lacking[0]!r} first; every split needs the same class folders, none empty"
    )
  # As bytes: a file's name may be no UTF-8.
  path_of, label_of = np.array([os.fsencode(path) for path in paths], object), np.array(of_path, np.int32)

  def read(numbers, skips, takes, parallel=False):
    numbers = tf.repeat(numbers, takes)  # a chunk is one picture
    return tf.data.Dataset.from_tensor_slices((numbers, (tf.gather(path_of, numbers), tf.gather(label_of, numbers))))

  def explain(example_id):
    path = readable(paths[example_id])
    try:
      pictures.check(storage.read_bytes(paths[example_id]))
    except pictures.PictureError as error:
      return f"{path} cannot be decoded ({error}); replace it or take it away"
    except FileNotFoundError as error:
      return f"{path} cannot be read: {error.strerror}"
    raise RunFailed(f"{path} could not be read, and now can; run the same command again")

  return Split(
    folder,
    folder,
    len(paths),
    (*class_names, *map(str, range(len(class_names), num_classes))),
    len(class_names),
    np.ones(len(paths), np.int64),
    max(len(os.fsencode(name)) for name in images),  # of `images`, so that the order is the same wherever the folder is
    read,
    lambda record: (tf.io.read_file(record[0]), record[1]),
    explain,
    _passed_over(ignored, empty),
  )


def _images(folder: str) -> tuple[list[str], list[str]]:
  """The pictures in class folders, by class and then by path, and what else is there; paths from `folder` on."""
  images, others, odd = [], [], {}
  for name, _ in storage.walk(folder, odd):
    if is_hidden(name):
      continue
    is_image = "/" in name and is_picture_file(storage.join(folder, name))
    (images if is_image else others).append(name)
  others += [name for name in odd if not is_hidden(name)]
  return sorted(images, key=lambda name: (name.partition("/")[0], name)), others


def is_picture_file(path: str) -> bool:
  """By its suffix, or else by its first bytes: what has the name of a picture and is none shall be named as bad."""
  return pictures.has_suffix(path) or pictures.is_picture(storage.read_head(path, pictures.HEAD_BYTES))


def _passed_over(ignored: list[str], empty: list[str]) -> str:
  """`ignored: 2 files that are no images in a class folder (a.txt first)`, or ""."""
  parts = []
  if ignored:
    parts.append(f"{len(ignored)} files that are no images in a class folder ({readable(min(ignored))} first)")
  if empty:
    parts.append(f"{len(empty)} class folders without images ({readable(min(empty))} first)")
  return "ignored: " + "; ".join(parts) if parts else ""
