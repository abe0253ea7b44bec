"""What to read: a prepared TFDS dataset by name, or a folder of pictures."""

import difflib
import os
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from shufflenet_jax import storage
from shufflenet_jax.data.class_names import first_difference, is_number
from shufflenet_jax.data.sources import digits, record_index
from shufflenet_jax.data.split import Split, check_classes
from shufflenet_jax.errors import UserError

FOLDER = "folder"  # the config's data.name for pictures in class folders

# Below this many chunks a shuffle of chunks is none: files are then cut at byte offsets. Beginning a chunk takes about
# a millisecond, so each has some records.
_FEW_CHUNKS, _LEAST_RECORDS = 1024, 32
_READ_AHEAD_BYTES = {True: 256 << 10, False: 8 << 20}  # by whether reading here and there is cheap


def open_split(data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False) -> Split:
  """Finds a prepared TFDS dataset without the network; prepares the bundled `digits` on first use.

  Args:
    data: the config's `data` section: `name` is a TFDS name, also `name/config:version`, or "folder" for pictures in
      `data_dir/<split>/<class>/`; `data_dir` says where TFDS datasets are, "" for TFDS's default.
    split: a TFDS split expression, or the name of a folder.
    num_classes: classes of the network.
    class_names: of the network, where it has some: a folder's classes are matched to them by name, a dataset's must
      be the same.
    every_class: whether a folder must hold pictures of every class.

  Raises:
    UserError: absent, not image classification, empty, another file format, or more or other classes than the
      network's.
  """
  if data.name != FOLDER:
    return _open_tfds(data.name, data.data_dir, split, num_classes, class_names)
  from shufflenet_jax.data.sources import folders  # which needs what is below

  return folders.open_split(data.data_dir, split, num_classes, class_names, every_class)


def _check_same_classes(name: str, names: Sequence[str], class_names: Sequence[str]) -> str:
  """A note, or "", on how a dataset's labels are those of a checkpoint; raises a UserError where they are not."""
  if (label := first_difference(names, class_names)) is not None:
    raise UserError(
      f"dataset {name!r} has other classes than the checkpoint: its class {label} is {names[label]!r}, the checkpoint's"
      f" {class_names[label]!r}; folders of pictures are matched by name (--data=FOLDER)"
    )
  by_number = [i for i, pair in enumerate(zip(names, class_names)) if is_number(pair[0]) != is_number(pair[1])]
  if not by_number:
    return ""
  i = by_number[0]
  return (
    f"note: {len(by_number)} classes of dataset {name!r} are matched by number, as there are no names to compare:"
    f" its {names[i]!r} is taken for the checkpoint's {class_names[i]!r}"
  )


def _open_tfds(name: str, data_dir: str, split: str, num_classes: int, class_names: Sequence[str]) -> Split:
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
  check_classes(f"dataset {name!r}", label.num_classes or 0, num_classes)
  note = _check_same_classes(name, label.names, class_names)
  sizes_there = dict(storage.walk(str(builder.data_path)))
  missing = {os.path.basename(i.filename) for i in instructions} - set(sizes_there)
  if missing:
    raise UserError(f"{builder.data_path} lacks {len(missing)} of its files, {min(missing)} first; prepare {name} anew")
  seekable = storage.seeks_cheaply(str(builder.data_path))
  try:
    with storage.translate_errors(str(builder.data_path)):
      paths, offsets, skips, sizes = _chunks(instructions, num_examples, seekable)
  except ValueError as error:
    raise UserError(f"{name} {split} cannot be read: {error}; prepare it anew") from None
  first_ids = np.cumsum(sizes) - sizes
  skip_decoding = {image_key: tfds.decode.SkipDecoding()}

  def read(numbers, more_skips, takes, parallel=False):
    @tf.autograph.experimental.do_not_convert
    def read_chunk(path, offset, skip, take, first_id):
      records = tf.raw_ops.TFRecordDatasetV2(  # the public one cannot begin at an offset
        filenames=[path], compression_type="", buffer_size=_READ_AHEAD_BYTES[seekable], byte_offsets=[offset]
      )
      records = tf.data.experimental.from_variant(records, tf.TensorSpec((), tf.string))
      return records.skip(skip).take(take).enumerate(first_id)

    rows = (
      tf.gather(paths, numbers),
      tf.gather(offsets, numbers),
      tf.gather(skips, numbers) + more_skips,
      takes,
      tf.gather(first_ids, numbers) + more_skips,
    )
    rows = tf.data.Dataset.from_tensor_slices(rows)
    if not parallel:
      return rows.flat_map(read_chunk)
    return rows.interleave(read_chunk, cycle_length=8, block_length=8, num_parallel_calls=8, deterministic=True)

  def parse(serialized):
    example = features.deserialize_example(serialized, decoders=skip_decoding)
    return example[image_key], example[label_key]

  def explain(example_id):
    chunk = np.searchsorted(first_ids, example_id, side="right") - 1
    return (
      f"example {example_id} of {name} {split}, in {os.path.basename(paths[chunk])}, is no picture that can be decoded;"
      " prepare it anew"
    )

  return Split(
    f"{name} {split}",
    str(builder.data_path),
    num_examples,
    # A network may have more classes than the dataset: they go by number.
    (*label.names, *map(str, range(len(label.names), num_classes))),
    len(label.names),
    sizes,
    max(1, sizes_there[os.path.basename(instructions[0].filename)] // instructions[0].examples_in_shard),
    read,
    parse,
    explain,
    note,
  )


def _chunks(instructions, num_examples: int, seekable: bool):
  """The parts of the files that readers take: (paths, byte offsets, records to skip after it, examples), arrays (n,).

  A part is a whole file where there are many files. Where there are few, files are cut into smaller parts, each with
  its offset. That is only done where seeking is cheap. In a bucket it is not: a dataset there should have 64 files or
  more, or each reader skips much of a file, and gives the same examples every epoch.
  """
  stride = max(_LEAST_RECORDS, num_examples // _FEW_CHUNKS)
  if not seekable or len(instructions) >= _FEW_CHUNKS:
    rows = [(i.filename, 0, i.skip, i.take) for i in instructions]
  else:
    rows = []
    for i in instructions:
      begins = np.arange(i.skip, i.skip + i.take, stride)
      ends = np.append(begins[1:], i.skip + i.take)
      offsets = record_index.offsets(i.filename, begins)
      rows += [(i.filename, *row) for row in zip(offsets, np.zeros_like(begins), ends - begins)]
  paths, *numbers = zip(*rows)
  return np.array(paths), *(np.array(column, np.int64) for column in numbers)


def plain(error: tf.errors.OpError) -> str:
  """TensorFlow's words without the names of its graph."""
  return re.sub(r"{{.*?}}|\[+(Op:|{{node).*", "", error.message.splitlines()[0] if error.message else "").strip()[:200]


def _sizes(builder) -> str:
  """`train: 10, test: 0`: the sizes of a dataset's splits."""
  return ", ".join(f"{name}: {info.num_examples}" for name, info in builder.info.splits.items()) or "no splits"


def _find_builder(name: str, data_dir: str | None):
  where = storage.normalize(data_dir or tfds.core.constants.DATA_DIR, "--config.data.data_dir=")
  bare = name.split("/")[0].split(":")[0]
  if bare == "digits":
    digits.prepare(where)
  try:
    # Ask here: TFDS takes a folder that it may not read for none.
    storage.list_folder(storage.join(where, bare))
    with storage.translate_errors(where), storage.report_slow_read(where):
      # From the files alone: the builder's code would ask the network about a dataset that isn't there.
      return tfds.core.read_only_builder.builder_from_files(name, data_dir=where)
  except (FileNotFoundError, tfds.core.registered.DatasetNotFoundError, ValueError):
    known = tfds.list_builders(with_community_datasets=False)
    if bare == "imagenet2012":
      remedy = (
        "prepare it with: python -m shufflenet_jax.data.prepare --name=imagenet2012 --train=ILSVRC2012_img_train.tar"
        f" --validation=ILSVRC2012_img_val.tar --to={where}"
      )
    elif bare in known:
      remedy = f"prepare it with: python -m tensorflow_datasets build {name} --data_dir={where}"
    else:
      near = difflib.get_close_matches(name, [*known, "digits"], n=3)
      remedy = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "TFDS knows no dataset of that name"
    raise UserError(
      f"dataset {name!r} is not in {where}; {remedy}; --config.data.data_dir=DIR looks elsewhere"
    ) from None
