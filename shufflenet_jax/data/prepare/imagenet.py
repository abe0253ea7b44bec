"""What is known of ImageNet (ILSVRC 2012): its classes, its counts, the labels of its validation pictures."""

import functools
import re
from collections.abc import Sequence

import tensorflow_datasets as tfds

from shufflenet_jax.errors import UserError

NUM_PICTURES = {"train": 1_281_167, "validation": 50_000}
VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@functools.cache
def class_names() -> tuple[str, ...]:
  """The 1,000 wnids in label order, as TFDS carries them."""
  return tuple(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split())


@functools.cache
def _validation_labels() -> tuple[str, ...]:
  """wnid of validation picture 1, 2, ... 50,000, as TFDS carries them."""
  return tuple(tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split())


def validation_label(name: str) -> str:
  """wnid of `ILSVRC2012_val_XXXXXXXX.JPEG`, by its number: TFDS goes by its place, and labels a part wrongly.

  Raises:
    UserError: no such number.
  """
  number = int(VALIDATION_NAME.fullmatch(name)[1])
  if not 1 <= number <= len(_validation_labels()):
    raise UserError(f"{name} is none of ImageNet's validation pictures: their numbers are 1 to 50,000")
  return _validation_labels()[number - 1]


def check(split: str, path: str, names_and_labels: Sequence[tuple[str, str]], allow_partial: bool) -> None:
  """That a split is ImageNet's, and the whole of it unless `allow_partial`.

  Args:
    split: train or validation.
    path: for messages.
    names_and_labels: the file name, without folders, and the wnid of each picture.
    allow_partial: whether pictures and classes may be missing.

  Raises:
    UserError: foreign classes, a validation picture in another class's folder, or something missing.
  """
  here = f"--{split}={path}"
  labels = {label for _, label in names_and_labels}
  foreign = sorted(labels.difference(class_names()))
  if foreign:
    raise UserError(f"{here} holds {len(foreign)} classes that ImageNet has not, {foreign[0]} first")
  present = set()
  for name, label in names_and_labels if split == "validation" else ():
    if VALIDATION_NAME.fullmatch(name):
      present.add(name)
      if label != validation_label(name):
        raise UserError(f"{here}: {name} is in class folder {label}; ImageNet's list says {validation_label(name)}")
  if allow_partial:
    return
  remedy = "fetch it anew, or take it as it is with --allow_partial"
  missing = [name for name in class_names() if name not in labels]
  count, expected = len(names_and_labels), NUM_PICTURES[split]
  if split == "validation" and len(present) < expected:
    first = next(n for n in (f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in range(expected)) if n not in present)
    raise UserError(
      f"{here} holds {len(present):,} of ImageNet's {expected:,} validation pictures; {expected - len(present):,} are"
      f" missing, {first} first; {remedy}"
    )
  if missing:
    raise UserError(f"{here} lacks {len(missing):,} of ImageNet's 1,000 classes, {missing[0]} first; {remedy}")
  if count != expected:
    raise UserError(f"{here} holds {count:,} pictures, ImageNet's {split} split {expected:,}; {remedy}")
