"""What to read: a prepared TFDS dataset, found by name, and its shards."""

import dataclasses
import difflib
from typing import Any

import tensorflow_datasets as tfds

from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
  """One split of an image-classification dataset.

  Attributes:
    name: the split expression, for instance `train[:90%]`.
    num_examples: how many examples it holds, > 0.
    files: (path, first record, records) of each TFRecord shard, in order.
    features: TFDS features, which parse a record.
    image_key: the image feature's name.
    label_key: the label feature's name.
    class_names: names in label order.
  """

  name: str
  num_examples: int
  files: tuple[tuple[str, int, int], ...]
  features: Any
  image_key: str
  label_key: str
  class_names: tuple[str, ...]


def open_split(name: str, data_dir: str, split: str, num_classes: int) -> Split:
  """Finds a prepared TFDS dataset without the network; prepares the bundled `digits` on first use.

  Args:
    name: TFDS name, also `name/config:version`.
    data_dir: where TFDS datasets are; "" for TFDS's default.
    split: a TFDS split expression.
    num_classes: classes of the network.

  Raises:
    UserError: absent, not image classification, empty, another file format, or more classes than the network.
  """
  builder = _find_builder(name, data_dir or None)
  features = builder.info.features
  image_key, label_key = builder.info.supervised_keys or ("image", "label")
  if not (
    {image_key, label_key} <= set(features)
    and isinstance(features[image_key], tfds.features.Image)
    and isinstance(features[label_key], tfds.features.ClassLabel)
  ):
    raise UserError(f"dataset {name!r} is not image classification: its features are {', '.join(features)}")
  if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
    raise UserError(
      f"dataset {name!r} in {builder.data_dir} is stored as {builder.info.file_format.value}; prepare it with"
      " file_format='tfrecord'"
    )
  try:
    info = builder.info.splits[split]
    instructions, num_examples = info.file_instructions, info.num_examples
  except (KeyError, ValueError, AssertionError):
    raise UserError(f"dataset {name!r} has no split {split!r}; it has {', '.join(builder.info.splits)}") from None
  if not num_examples:
    raise UserError(f"split {split!r} of dataset {name!r} is empty; {builder.data_dir} holds {_sizes(builder)}")
  label = features[label_key]
  if label.num_classes and label.num_classes > num_classes:
    raise UserError(
      f"dataset {name!r} has {label.num_classes} classes, the network num_classes={num_classes};"
      f" set --config.model.num_classes={label.num_classes}"
    )
  return Split(
    split,
    num_examples,
    tuple((i.filename, i.skip, i.take) for i in instructions),
    features,
    image_key,
    label_key,
    tuple(label.names or map(str, range(num_classes))),
  )


def _sizes(builder) -> str:
  """`train: 10, test: 0`: the sizes of a dataset's splits."""
  return ", ".join(f"{name}: {info.num_examples}" for name, info in builder.info.splits.items()) or "no splits"


def _find_builder(name: str, data_dir: str | None):
  if name == "digits":
    from shufflenet_jax.data.digits import Digits

    tfds.disable_progress_bar()  # it takes half a second
    builder = Digits(data_dir=data_dir)
    builder.download_and_prepare()
    return builder
  try:
    # From the files alone: the builder's code would ask the network about a dataset that isn't there.
    return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
  except (tfds.core.registered.DatasetNotFoundError, FileNotFoundError, ValueError):
    where = data_dir or tfds.core.constants.DATA_DIR
    known = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] in known:
      remedy = f"prepare it with: python -m tensorflow_datasets build {name} --data_dir={where}"
    else:
      near = difflib.get_close_matches(name, [*known, "digits"], n=3)
      remedy = "TFDS does not know that name either" + (f"; did you mean {', '.join(near)}?" if near else "")
    raise UserError(f"dataset {name!r} is not in {where}; {remedy}, or point --config.data.data_dir at it") from None
