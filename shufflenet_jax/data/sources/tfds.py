"""Datasets that TFDS has prepared, opened by name."""

import dataclasses
import difflib
import functools
import os
from collections.abc import Callable, Collection, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from shufflenet_jax import storage
from shufflenet_jax.data import class_names as naming
from shufflenet_jax.data import sources
from shufflenet_jax.data.sources import record_index
from shufflenet_jax.data.split import Split, check_number_of_classes, pad_class_names
from shufflenet_jax.errors import UserError

MARKER = "dataset_info.json"  # TFDS does not recognise a folder without this file as a dataset

# Shuffling the order of a few files mixes hardly anything, so we divide them into about this many chunks. Starting to
# read a chunk takes about a millisecond, so each has at least 32 records.
_MIN_CHUNKS, _MIN_CHUNK_RECORDS = 1024, 32
_READ_AHEAD_BYTES = {True: 256 << 10, False: 8 << 20}  # by whether `storage.seeks_cheaply`


def open_split(data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False) -> Split:
  """Opens a prepared dataset; arguments and errors as for `sources.open_split`."""
  del every_class  # a dataset has the classes it was prepared with
  builder = find_builder(data.name, datasets_folder(data.data_dir))
  image_key, label_key = _classification_keys(data.name, builder)

  def parse(serialized):
    example = builder.info.features.deserialize_example(serialized, decoders={image_key: tfds.decode.SkipDecoding()})
    return example[image_key], example[label_key]

  label = builder.info.features[label_key]
  return open_records(
    data.name, builder, split, label=label, num_classes=num_classes, class_names=class_names, parse=parse
  )


def open_records(
  name: str,
  builder,
  split: str,
  *,
  label: tfds.features.ClassLabel,
  num_classes: int,
  class_names: Sequence[str],
  parse: Callable,
  explain: Callable[[bytes], str] | None = None,
) -> Split:
  """Opens a split of a dataset, whatever its records hold.

  Args:
    name: the dataset's in the config.
    builder: as `find_builder` returns it.
    split: a TFDS split expression.
    label: the feature with the dataset's classes.
    num_classes: classes of the network.
    class_names: the network's, if known.
    parse: serialized example -> what `Split.parse` gives.
    explain: serialized example -> why it cannot be used; "" if its picture must be at fault. Without `explain`, the
      picture is always taken to be at fault.

  Raises:
    UserError: the split is absent or empty, the files are damaged or in another format, or the classes are not the
      network's.
  """
  if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
    raise UserError(
      f"dataset {name!r} in {builder.data_dir} is stored as {builder.info.file_format.value}; prepare it with"
      " file_format='tfrecord'"
    )
  check_number_of_classes(f"dataset {name!r}", label.num_classes or 0, num_classes, class_names)
  note = _check_same_classes(name, label.names, class_names)
  chunks, num_examples, record_bytes = _open_chunks(name, builder, split)

  def explain_example(example_id):
    path = os.path.basename(chunks.path_of(example_id))
    reason = explain(chunks.record(example_id)) if explain else ""
    reason = f": {reason}" if reason else ", is not a picture that can be decoded; prepare it again"
    return f"example {example_id} of {name} {split}, in {path}{reason}"

  return Split(
    name=f"{name} {split}",
    folder=str(builder.data_path),
    num_examples=num_examples,
    class_names=pad_class_names(label.names, num_classes),
    dataset_classes=len(label.names),
    chunk_sizes=chunks.sizes,
    record_bytes=record_bytes,
    read=chunks.read,
    parse=parse,
    explain=explain_example,
    note=note,
  )


def _open_chunks(name: str, builder, split: str) -> tuple["_Chunks", int, int]:
  """The chunks of a split, the number of its examples, and about how large a record is, in bytes."""
  files, num_examples = files_of_split(name, builder, split)
  file_sizes = dict(storage.walk(str(builder.data_path)))
  check_present(name, builder, {os.path.basename(file.filename) for file in files}, file_sizes)
  seekable = storage.seeks_cheaply(str(builder.data_path))
  try:
    with storage.translate_errors(str(builder.data_path)):
      chunks = _Chunks.of_files(files, num_examples, seekable)
  except ValueError as error:
    raise UserError(f"{name} {split} cannot be read: {error}; prepare it again") from None
  record_bytes = max(1, file_sizes[os.path.basename(files[0].filename)] // files[0].examples_in_shard)
  return chunks, num_examples, record_bytes


def check_present(name: str, builder, wanted: Collection[str], present: Collection[str]) -> None:
  """Raises a UserError if some of the files that a split needs are not in the dataset's folder."""
  if missing := set(wanted) - set(present):
    raise UserError(
      f"{builder.data_path} lacks {len(missing)} of its files, {min(missing)} first; prepare {name} again"
    )


def datasets_folder(data_dir: str) -> str:
  """The folder of TFDS datasets that a config names; "" means TFDS's default."""
  return storage.normalize(data_dir or tfds.core.constants.DATA_DIR, "--config.data.data_dir=")


def _classification_keys(name: str, builder) -> tuple[str, str]:
  """The keys of image and label in a dataset's examples; raises a UserError if it has none."""
  features = builder.info.features
  image_key, label_key = builder.info.supervised_keys or ("image", "label")
  if not (
    {image_key, label_key} <= set(features)
    and isinstance(features[image_key], tfds.features.Image)
    and isinstance(features[label_key], tfds.features.ClassLabel)
  ):
    remedy = (
      "a dataset with boxes needs a detector, which configs/boxes.py trains"
      if "objects" in features
      else "it needs an image and a label"
    )
    raise UserError(
      f"dataset {name!r} is not image classification: its features are {', '.join(sorted(features))}; {remedy}"
    )
  return image_key, label_key


def files_of_split(name: str, builder, split: str) -> tuple[list, int]:
  """TFDS's `file_instructions` of a split expression (which records of which files), and the number of examples."""
  splits = builder.info.splits
  try:
    info = splits[split]
    files, num_examples = info.file_instructions, info.num_examples
  except (KeyError, ValueError, AssertionError):
    raise UserError(f"dataset {name!r} has no split {split!r}; it has {', '.join(splits)}") from None
  if not num_examples:
    sizes = ", ".join(f"{name}: {info.num_examples}" for name, info in splits.items()) or "no splits"
    raise UserError(f"split {split!r} of dataset {name!r} is empty; {builder.data_dir} holds {sizes}")
  return files, num_examples


def _check_same_classes(name: str, names: Sequence[str], class_names: Sequence[str]) -> str:
  """Raises a UserError if a dataset's classes are not the checkpoint's; returns a note if some have no names, or ""."""
  if (label := naming.first_difference(names, class_names)) is not None:
    raise UserError(
      f"dataset {name!r} has other classes than the checkpoint: its class {label} is {names[label]!r}, the checkpoint's"
      f" {class_names[label]!r}; folders of pictures are matched by name (--data=FOLDER)"
    )
  is_number = naming.is_number
  by_number = [i for i, pair in enumerate(zip(names, class_names)) if is_number(pair[0]) != is_number(pair[1])]
  if not by_number:
    return ""
  i = by_number[0]
  return (
    f"note: {len(by_number)} classes of dataset {name!r} are matched by number, as there are no names to compare:"
    f" its {names[i]!r} counts as the checkpoint's {class_names[i]!r}"
  )


@dataclasses.dataclass(frozen=True)
class _Chunks:
  """Parts of TFRecord files.

  Attributes:
    paths: str (chunks,), the file of each.
    offsets: int64 (chunks,), the byte at which reading begins.
    skips: int64 (chunks,), records to skip from there.
    sizes: int64 (chunks,), records in the chunk.
    seekable: whether seeking in the files costs no more than reading on.
  """

  paths: np.ndarray
  offsets: np.ndarray
  skips: np.ndarray
  sizes: np.ndarray
  seekable: bool

  @classmethod
  def of_files(cls, files, num_examples: int, seekable: bool) -> "_Chunks":
    """Whole files if there are many, or parts of them if there are few.

    Files in a bucket are never divided, because seeking there is slow. A dataset in a bucket should therefore have 64
    files or more: otherwise each reader skips much of a file, and gets the same examples in every epoch.

    Raises:
      ValueError: a file ends early.
    """
    if not seekable or len(files) >= _MIN_CHUNKS:
      rows = [(file.filename, 0, file.skip, file.take) for file in files]
    else:
      rows, chunk_records = [], max(_MIN_CHUNK_RECORDS, num_examples // _MIN_CHUNKS)
      for file in files:
        begins = np.arange(file.skip, file.skip + file.take, chunk_records)
        ends = np.append(begins[1:], file.skip + file.take)
        offsets = record_index.offsets(file.filename, begins)
        rows += [(file.filename, *row) for row in zip(offsets, np.zeros_like(begins), ends - begins)]
    paths, *numbers = zip(*rows)
    return cls(np.array(paths), *(np.array(column, np.int64) for column in numbers), seekable)

  @functools.cached_property
  def first_ids(self) -> np.ndarray:
    """int64 (chunks,): the id of each chunk's first example."""
    return np.cumsum(self.sizes) - self.sizes

  def path_of(self, example_id: int) -> str:
    """The file that holds an example."""
    return self.paths[self._chunk_of(example_id)]

  def record(self, example_id: int) -> bytes:
    """An example as it is stored."""
    chunk = self._chunk_of(example_id)
    skip = example_id - self.first_ids[chunk]
    [(_, record)] = self.read(np.array([chunk]), np.array([skip]), np.array([1])).as_numpy_iterator()
    return record

  def _chunk_of(self, example_id: int) -> int:
    return int(np.searchsorted(self.first_ids, example_id, side="right")) - 1

  def read(self, chunks, skips, takes, parallel=False) -> tf.data.Dataset:
    """(id, serialized example); see `Split.read`."""

    @tf.autograph.experimental.do_not_convert
    def read_chunk(path, offset, skip, take, first_id):
      records = tf.raw_ops.TFRecordDatasetV2(  # the public one cannot begin at an offset
        filenames=[path], compression_type="", buffer_size=_READ_AHEAD_BYTES[self.seekable], byte_offsets=[offset]
      )
      records = tf.data.experimental.from_variant(records, tf.TensorSpec((), tf.string))
      return records.skip(skip).take(take).enumerate(first_id)

    rows = (
      tf.gather(self.paths, chunks),
      tf.gather(self.offsets, chunks),
      tf.gather(self.skips, chunks) + skips,
      takes,
      tf.gather(self.first_ids, chunks) + skips,
    )
    rows = tf.data.Dataset.from_tensor_slices(rows)
    if not parallel:
      return rows.flat_map(read_chunk)
    return rows.interleave(read_chunk, cycle_length=8, block_length=8, num_parallel_calls=8, deterministic=True)


def find_builder(name: str, folder: str):
  """The TFDS builder of a prepared dataset; raises a UserError if `folder` does not hold the dataset."""
  base_name = sources.base_name(name)
  try:
    # We list the folder ourselves, because TFDS reports one without read permission as absent.
    storage.list_folder(storage.join(folder, base_name))
    with storage.translate_errors(folder), storage.report_slow_read(folder):
      # Opens the dataset from its files, without running the builder's code, which would look for an absent dataset on
      # the network.
      return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
  except (FileNotFoundError, tfds.core.registered.DatasetNotFoundError, ValueError):
    raise UserError(
      f"dataset {name!r} is not in {folder}; {_remedy(name, base_name, folder)};"
      " --config.data.data_dir=DIR looks elsewhere"
    ) from None


def _remedy(name: str, base_name: str, folder: str) -> str:
  listed = storage.list_folder(storage.join(folder, base_name), missing_ok=True)
  if unfinished := [entry for entry, _ in listed if entry.endswith(".incomplete")]:
    return f"its preparation has not ended ({unfinished[0]}): start data.prepare again with the same flags"
  known = tfds.list_builders(with_community_datasets=False)
  if base_name == "imagenet2012":
    return (
      "prepare it with: python -m shufflenet_jax.data.prepare --name=imagenet2012 --train=ILSVRC2012_img_train.tar"
      f" --validation=ILSVRC2012_img_val.tar --to={folder}"
    )
  if base_name in known:
    return f"prepare it with: python -m tensorflow_datasets build {name} --data_dir={folder}"
  similar = difflib.get_close_matches(name, {*known, *sources.SOURCES}, n=3)
  return f"did you mean {' or '.join(similar)}?" if similar else "TFDS knows no dataset of that name"
