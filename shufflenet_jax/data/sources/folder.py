"""Pictures in one folder per class."""

import dataclasses
import difflib
import functools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from shufflenet_jax import storage
from shufflenet_jax.data import class_names as naming
from shufflenet_jax.data import picture_formats, pictures
from shufflenet_jax.data.listing import is_hidden, is_picture_file, printable, visible_folders
from shufflenet_jax.data.split import Split, check_number_of_classes, pad_class_names
from shufflenet_jax.errors import RunFailed, UserError


def open_split(data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False) -> Split:
  """Opens `data_dir/<split>/<class>/.../picture`; arguments and errors as for `sources.open_split`.

  Without `class_names`, the sorted names of the folders are the classes.
  """
  if not data.data_dir:
    raise UserError("--config.data.name=folder needs --config.data.data_dir=DIR, which holds one folder per split")
  root = storage.normalize(data.data_dir, "--config.data.data_dir=")
  try:
    splits = visible_folders(root)
  except FileNotFoundError as error:
    raise UserError(f"--config.data.data_dir={data.data_dir} cannot be read: {error.strerror}") from None
  if split not in splits:
    choice = " or ".join(map(printable, splits)) or "none: it is empty"
    raise UserError(f"{root} has no folder {split!r}; config.data.train_split and eval_split can be {choice}")
  folder = storage.join(root, split)
  known = list(class_names) or visible_folders(folder)
  if not class_names:
    check_number_of_classes(f"folder {folder}", len(known), num_classes)
  return _open(folder, folder, known, num_classes, every_class)


def open_folder(folder: str, class_names: Sequence[str]) -> Split:
  """Opens `folder/<class>/.../picture` to evaluate a network on, matching classes by name, never by position.

  A folder is named like a class, or by the first word of its name if that suffices (see `class_names.py`). Some of the
  classes may be absent.

  Args:
    folder: the value of --data.
    class_names: the network's, in label order.

  Raises:
    UserError: there is no such folder, it has a folder that matches none of the classes, or it holds no pictures.
  """
  path = storage.normalize(folder, "--data=")
  if not storage.is_folder(path):
    raise UserError(f"--data={folder} is not a folder; give one that holds a folder of images per class")
  return _open(path, f"--data={folder}", class_names, len(class_names), every_class=False)


@dataclasses.dataclass(frozen=True)
class _Pictures:
  """The pictures of a split, each a chunk of its own.

  Attributes:
    paths: of the files.
    labels: int32 (pictures,).
  """

  paths: list[str]
  labels: np.ndarray

  @functools.cached_property
  def encoded_paths(self) -> np.ndarray:
    """The paths as bytes, because names need not be UTF-8."""
    return np.array([os.fsencode(path) for path in self.paths], object)

  def read(self, chunks, skips, takes, parallel=False) -> tf.data.Dataset:
    """(id, (path, label)); see `Split.read`."""
    del skips, parallel  # a chunk is one picture
    ids = tf.repeat(chunks, takes)
    records = tf.gather(self.encoded_paths, ids), tf.gather(self.labels, ids)
    return tf.data.Dataset.from_tensor_slices((ids, records))

  def explain(self, example_id: int) -> str:
    """Why a picture cannot be used; see `Split.explain`."""
    path = printable(self.paths[example_id])
    try:
      pictures.check(storage.read_bytes(self.paths[example_id]))
    except picture_formats.PictureError as error:
      return f"{path} cannot be decoded ({error}); replace or remove it"
    except FileNotFoundError as error:
      return f"{path} cannot be read: {error.strerror}"
    raise RunFailed(f"{path} could not be read a moment ago, but can now; run the same command again")


def _parse(record) -> tuple[tf.Tensor, tf.Tensor]:
  path, label = record
  return tf.io.read_file(path), label


def _open(folder: str, description: str, class_names: Sequence[str], num_classes: int, every_class: bool) -> Split:
  label_of_folder = _labels(folder, class_names, "training data" if every_class else "checkpoint")
  names, ignored = _list_pictures(folder)
  empty = sorted(set(label_of_folder).difference(name.partition("/")[0] for name in names))
  labels = [label_of_folder[name.partition("/")[0]] for name in names]
  if not names:
    raise UserError(f"{description} holds no images ({picture_formats.NAMES}) in class folders")
  absent = [name for i, name in enumerate(class_names) if i not in set(labels)] if every_class else []
  if absent:
    raise UserError(
      f"{description} has no images ({picture_formats.NAMES}) of {len(absent)} of its {len(class_names)} classes,"
      f" {absent[0]!r} first; every split needs the same class folders, none of them empty"
    )
  images = _Pictures([storage.join(folder, name) for name in names], np.array(labels, np.int32))
  return Split(
    name=folder,
    folder=folder,
    num_examples=len(names),
    class_names=pad_class_names(class_names, num_classes),
    dataset_classes=len(class_names),
    chunk_sizes=np.ones(len(names), np.int64),
    # A record is a path. We take the size of the relative path, because the order of training depends on it, and
    # should not depend on where the folder is.
    record_bytes=max(len(os.fsencode(name)) for name in names),
    read=images.read,
    parse=_parse,
    explain=images.explain,
    note=_describe_ignored(ignored, empty),
  )


def _labels(folder: str, class_names: Sequence[str], owner: str) -> dict[str, int]:
  """Name of each class folder -> its label; raises a UserError for a folder that is none of the owner's classes."""
  folder_names = visible_folders(folder)
  labels = {folder_names[i]: label for i, label in naming.match(folder_names, class_names).items()}
  for name in folder_names:
    if name not in labels:
      example = difflib.get_close_matches(name, class_names, n=1) or class_names
      raise UserError(
        f"{printable(storage.join(folder, name))} is not a class of the {owner};"
        f" its {len(class_names)} classes have names like {printable(example[0])!r}"
      )
  return labels


def _list_pictures(folder: str) -> tuple[list[str], list[str]]:
  """The pictures in class folders, sorted by class and then by path, and all other files; relative to `folder`."""
  images, others, neither_file_nor_folder = [], [], {}
  for name, _ in storage.walk(folder, neither_file_nor_folder):
    if is_hidden(name):
      continue
    is_image = "/" in name and is_picture_file(storage.join(folder, name))
    (images if is_image else others).append(name)
  others += [name for name in neither_file_nor_folder if not is_hidden(name)]
  return sorted(images, key=lambda name: (name.partition("/")[0], name)), others


def _describe_ignored(ignored: list[str], empty: list[str]) -> str:
  """`ignored: 2 files that are not images in a class folder (a.txt first)`, or ""."""
  parts = []
  if ignored:
    parts.append(f"{len(ignored)} files that are not images in a class folder ({printable(min(ignored))} first)")
  if empty:
    parts.append(f"{len(empty)} class folders without images ({printable(min(empty))} first)")
  return "ignored: " + "; ".join(parts) if parts else ""
