"""What to read: a prepared TFDS dataset, found by name, and its shards."""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from shufflenet_jax.data import augment
from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
  """Examples of an image-classification dataset, in shards that can be read in any order.

  Attributes:
    name: for messages, for instance `digits train[:90%]`.
    num_examples: how many there are, > 0.
    class_names: names in label order, at least one for each class of the network.
    dataset_classes: how many of them are the dataset's own.
    shards: tensors with one row a shard.
    read_shard: a row of `shards` -> `tf.data.Dataset` of (id, record); ids count from 0 over the whole split.
    parse: record -> (encoded image, label).
    explain: (id, TensorFlow's words) -> one line about why that example, or one after it, cannot be read.
    note: what was passed over, "" if nothing.
  """

  name: str
  num_examples: int
  class_names: tuple[str, ...]
  dataset_classes: int
  shards: tuple[tf.Tensor, ...]
  read_shard: Callable[..., tf.data.Dataset]
  parse: Callable[..., tuple[tf.Tensor, tf.Tensor]]
  explain: Callable[[int, str], str]
  note: str = ""


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
  missing = {os.path.basename(i.filename) for i in instructions} - set(tf.io.gfile.listdir(str(builder.data_path)))
  if missing:
    raise UserError(f"{builder.data_path} lacks {len(missing)} of its files, {min(missing)} first; prepare {name} anew")
  takes = [i.take for i in instructions]
  # A network may have more classes than the dataset: they go by number.
  class_names = [*label.names, *map(str, range(len(label.names), num_classes))]
  skip_decoding = {image_key: tfds.decode.SkipDecoding()}

  def read_shard(path, skip, take, first_id):
    return tf.data.TFRecordDataset(path).skip(skip).take(take).enumerate(first_id)

  def parse(serialized):
    example = features.deserialize_example(serialized, decoders=skip_decoding)
    return example[image_key], example[label_key]

  return Split(
    f"{name} {split}",
    num_examples,
    tuple(class_names),
    len(label.names),
    (
      tf.constant([i.filename for i in instructions]),
      tf.constant([i.skip for i in instructions], tf.int64),
      tf.constant(takes, tf.int64),
      tf.constant(np.cumsum([0, *takes[:-1]]), tf.int64),
    ),
    read_shard,
    parse,
    lambda first_id, words: f"{name} {split} cannot be read: {words}; prepare it anew",
  )


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def open_folder(folder: str, class_names: Sequence[str]) -> Split:
  """Images in one folder per class, matched to classes by name, never by rank.

  A folder is a class's whole name, or its first word (`n01440764` for
  `n01440764 tench, Tinca tinca`). A folder of some of the classes is fine.

  Args:
    folder: holds `CLASS/.../IMAGE`.
    class_names: names in label order.

  Raises:
    UserError: no such folder, a folder of no known class, or no images.
  """
  root = epath.Path(folder)
  if not root.is_dir():
    raise UserError(f"--data={folder} is not a folder; give one that holds a folder of images per class")
  first_words = [name.split()[0] for name in class_names]
  labels = {word: i for i, word in enumerate(first_words) if first_words.count(word) == 1}
  labels |= {name: i for i, name in enumerate(class_names)}
  paths, of_path, ignored, empty = [], [], [], []
  for of_class in sorted(p for p in root.iterdir() if not p.name.startswith(".")):
    if not of_class.is_dir():
      ignored.append(of_class.name)
      continue
    if of_class.name not in labels:
      near = difflib.get_close_matches(of_class.name, labels, n=1) or list(class_names[:3])
      raise UserError(
        f"{of_class} is no class of the checkpoint; its {len(class_names)} classes are named as {near[0]!r}"
      )
    files = sorted(
      os.path.join(parent, name)
      for parent, _, names in tf.io.gfile.walk(os.fspath(of_class))  # gs:// too
      for name in names
      if not name.startswith(".")
    )
    images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
    ignored += [os.path.relpath(path, root) for path in files if not path.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
      empty.append(of_class.name)
    paths += images
    of_path += [labels[of_class.name]] * len(images)
  if not paths:
    raise UserError(f"--data={folder} holds no images ({', '.join(IMAGE_SUFFIXES)}) in class folders")

  def read_shard(path, label, index):
    return tf.data.Dataset.from_tensors((index, (path, label)))

  def explain(first_id, words):
    for path in paths[first_id:]:
      try:
        augment.decode(tf.io.read_file(path))
      except tf.errors.InvalidArgumentError:
        return f"{path} cannot be decoded ({', '.join(IMAGE_SUFFIXES)}); mend it or take it away"
      except tf.errors.OpError as error:
        return f"{path} cannot be read: {plain(error)}"
    return f"--data={folder} cannot be read: {words}"

  return Split(
    folder,
    len(paths),
    tuple(class_names),
    len(class_names),
    (tf.constant(paths), tf.constant(of_path, tf.int32), tf.range(len(paths), dtype=tf.int64)),
    read_shard,
    lambda record: (tf.io.read_file(record[0]), record[1]),
    explain,
    _passed_over(ignored, empty),
  )


def _passed_over(ignored: list[str], empty: list[str]) -> str:
  """`ignored: 2 files that are no images in a class folder (a.txt first)`, or ""."""
  parts = []
  if ignored:
    parts.append(f"{len(ignored)} files that are no images in a class folder ({min(ignored)} first)")
  if empty:
    parts.append(f"{len(empty)} class folders without images ({min(empty)} first)")
  return "ignored: " + "; ".join(parts) if parts else ""


def plain(error: tf.errors.OpError) -> str:
  """TensorFlow's words without the names of its graph."""
  return re.sub(r"{{.*?}}|\[+(Op:|{{node).*", "", error.message.splitlines()[0] if error.message else "").strip()[:200]


def _sizes(builder) -> str:
  """`train: 10, test: 0`: the sizes of a dataset's splits."""
  return ", ".join(f"{name}: {info.num_examples}" for name, info in builder.info.splits.items()) or "no splits"


def _find_builder(name: str, data_dir: str | None):
  if name == "digits":
    from shufflenet_jax.data.digits import Digits

    tfds.disable_progress_bar()  # it takes half a second
    try:
      builder = Digits(data_dir=data_dir)
      builder.download_and_prepare()
    except OSError as error:
      raise UserError(f"--config.data.data_dir={data_dir}: digits cannot be prepared there: {error}") from None
    return builder
  try:
    # From the files alone: the builder's code would ask the network about a dataset that isn't there.
    return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
  except (tfds.core.registered.DatasetNotFoundError, OSError, ValueError):
    where = data_dir or tfds.core.constants.DATA_DIR
    known = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] in known:
      remedy = f"prepare it with: python -m tensorflow_datasets build {name} --data_dir={where}"
    else:
      near = difflib.get_close_matches(name, [*known, "digits"], n=3)
      remedy = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "TFDS knows no dataset of that name"
    raise UserError(
      f"dataset {name!r} is not in {where}; {remedy}; --config.data.data_dir=DIR looks elsewhere"
    ) from None
