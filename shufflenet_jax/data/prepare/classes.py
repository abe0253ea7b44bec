"""Datasets of pictures with one class each: class folders, tars of them, and ImageNet's tars."""

import os
from collections import Counter
from collections.abc import Callable

import tensorflow_datasets as tfds

from shufflenet_jax.data.class_names import match
from shufflenet_jax.data.prepare import imagenet, inputs
from shufflenet_jax.data.prepare.inputs import ClassSource
from shufflenet_jax.data.prepare.options import Options
from shufflenet_jax.data.prepare.source import Contents, Picture, check_names, check_same_in_both
from shufflenet_jax.errors import UserError


def open_source(options: Options, split: str, progress: Callable[[int], None]) -> ClassSource:
  """Lists the pictures of a split; arguments and errors otherwise as for `inputs.open_source`."""
  return inputs.open_source(f"--{split}", os.path.expanduser(getattr(options, split)), progress)


def contents(options: Options, sources: dict[str, ClassSource]) -> Contents:
  """What the dataset of these sources holds.

  Raises:
    UserError: the classes of the splits differ or cannot be used, or ImageNet is incomplete.
  """
  of_imagenet = options.name == "imagenet2012" or any(source.of_imagenet for source in sources.values())
  class_names = _check_imagenet(sources, options.allow_partial) if of_imagenet else _common_classes(**sources)
  labels = _labels(sources, class_names)

  def to_example(picture: Picture, encoded: bytes) -> dict:
    name = os.path.basename(picture.name) if of_imagenet else picture.name
    return {"image": encoded, "label": labels[picture.label], "file_name": os.fsencode(name)}

  return Contents(
    title=f"Pictures of {len(class_names):,} classes",
    num_classes=len(class_names),
    features=_features(class_names, of_imagenet),
    supervised_keys=("image", "label"),
    homepage="https://image-net.org/" if of_imagenet else "",
    to_example=to_example,
    describe=_describe,
  )


def _check_imagenet(sources: dict[str, ClassSource], allow_partial: bool) -> list[str]:
  """ImageNet's class names, after checking that the sources are ImageNet's."""
  for split, source in sources.items():
    names_and_labels = [(os.path.basename(p.name), p.label) for p in source.pictures]
    imagenet.check(split, source.path, names_and_labels, allow_partial)
  return list(imagenet.class_names())


def _common_classes(train: ClassSource, validation: ClassSource) -> list[str]:
  """Names of the training split's class folders; raises a UserError if the validation split has others."""
  names, validation_names = (sorted({p.label for p in source.pictures}) for source in (train, validation))
  matched = match(validation_names, names)
  in_both = set(matched.values())
  check_same_in_both(
    "classes",
    training=[name for i, name in enumerate(names) if i not in in_both],
    validation=[name for i, name in enumerate(validation_names) if i not in matched],
  )
  if len(names) == 1:
    raise UserError(f"--train={train.path} holds one class, {names[0]}; give the folder that holds the class folders")
  check_names("class folder", names)
  return names


def _labels(sources: dict[str, ClassSource], class_names: list[str]) -> dict[str, int]:
  """Name of each class folder in any split -> label."""
  labels = {}
  for source in sources.values():
    names = sorted({p.label for p in source.pictures})
    labels |= {names[i]: label for i, label in match(names, class_names).items()}
  return labels


def _features(class_names: list[str], of_imagenet: bool) -> tfds.features.FeaturesDict:
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(encoding_format="jpeg" if of_imagenet else None),
      "label": tfds.features.ClassLabel(names=class_names),
      "file_name": tfds.features.Text(),  # ImageNet's as in TFDS, n01440764_10026.JPEG; others with the class folder
    }
  )


def _describe(source: ClassSource) -> str:
  sizes = Counter(p.label for p in source.pictures).values()
  return f"{len(sizes):,} classes of {min(sizes):,} to {max(sizes):,}"
