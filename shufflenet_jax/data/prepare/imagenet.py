"""What is known about ImageNet (ILSVRC 2012): its classes, its counts, and the labels of its validation pictures."""

import functools
import re
from collections.abc import Sequence

import tensorflow_datasets as tfds

from shufflenet_jax.errors import UserError

NUM_PICTURES = {"train": 1_281_167, "validation": 50_000}
VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@functools.cache
def class_names() -> tuple[str, ...]:
  """The 1,000 WordNet ids in label order, from the list in TFDS."""
  return tuple(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split())


@functools.cache
def _validation_labels() -> tuple[str, ...]:
  """The WordNet ids of validation pictures 1 to 50,000, from the list in TFDS."""
  return tuple(tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split())


def validation_label(name: str) -> str:
  """The WordNet id of `ILSVRC2012_val_XXXXXXXX.JPEG`, by the number in its name.

  TFDS goes by the position in the tar instead, so that an incomplete tar gets wrong labels.

  Raises:
    UserError: there is no picture of that number.
  """
  number = int(VALIDATION_NAME.fullmatch(name)[1])
  if not 1 <= number <= len(_validation_labels()):
    raise UserError(f"{name} is not one of ImageNet's validation pictures: their numbers are 1 to 50,000")
  return _validation_labels()[number - 1]


def check(split: str, path: str, names_and_labels: Sequence[tuple[str, str]], allow_partial: bool) -> None:
  """Checks that a split is ImageNet's, and complete unless `allow_partial`.

  Args:
    split: train or validation.
    path: for messages.
    names_and_labels: the file name, without folders, and the WordNet id of each picture.
    allow_partial: whether pictures and classes may be missing.

  Raises:
    UserError: there are classes that ImageNet does not have, a validation picture is in another class's folder, or
      something is missing.
  """
  flag = f"--{split}={path}"
  labels = {label for _, label in names_and_labels}
  unknown = sorted(labels.difference(class_names()))
  if unknown:
    raise UserError(f"{flag} holds {len(unknown)} classes that ImageNet does not have, {unknown[0]} first")
  present = set()
  for name, label in names_and_labels if split == "validation" else ():
    if VALIDATION_NAME.fullmatch(name):
      present.add(name)
      if label != validation_label(name):
        raise UserError(f"{flag}: {name} is in class folder {label}; ImageNet's list has {validation_label(name)}")
  if allow_partial:
    return
  remedy = "get the complete data, or accept a part with --allow_partial"
  missing = [name for name in class_names() if name not in labels]
  count, expected = len(names_and_labels), NUM_PICTURES[split]
  if split == "validation" and len(present) < expected:
    first = next(n for n in (f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in range(expected)) if n not in present)
    raise UserError(
      f"{flag} holds {len(present):,} of ImageNet's {expected:,} validation pictures; {expected - len(present):,} are"
      f" missing, {first} first; {remedy}"
    )
  if missing:
    raise UserError(f"{flag} lacks {len(missing):,} of ImageNet's 1,000 classes, {missing[0]} first; {remedy}")
  if count != expected:
    raise UserError(f"{flag} holds {count:,} pictures, ImageNet's {split} split {expected:,}; {remedy}")
