"""Which files of a prepared dataset a config reads, and how large they are."""

import dataclasses
import os

from shufflenet_jax import storage
from shufflenet_jax.data import sources
from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class NeededFile:
  """One file.

  Attributes:
    name: relative to the datasets' folder.
    size: in bytes.
    version: changes when the file is written anew; see `storage.versions`.
  """

  name: str
  size: int
  version: str


@dataclasses.dataclass(frozen=True)
class NeededFiles:
  """What a config reads, of its splits for training and evaluation.

  Attributes:
    folder: the config's data.data_dir, as `storage.normalize` returns it.
    files: sorted by name.
    num_examples: of both splits; None if that is known only after reading the files.
  """

  folder: str
  files: list[NeededFile]
  num_examples: int | None

  @property
  def size(self) -> int:
    """Of all files, bytes."""
    return sum(file.size for file in self.files)


def of_config(config) -> NeededFiles:
  """Lists the files that a config reads: of a TFDS dataset its descriptions and the shards of two splits.

  All hosts need all of them. Each epoch has a new order of the shards and of the parts of shards, and a host reads its
  part of every batch in that order, so that over the epochs it reads every shard.

  Raises:
    UserError: data.data_dir is not given or does not hold the dataset, the dataset lacks files, or the pictures are in
      class folders.
    Unavailable: the folder cannot be read now.
  """
  data = config.data
  if not data.data_dir:
    raise UserError(
      "--config.data.data_dir is not given, so it is not known which files to copy; give the folder that holds"
      f" {data.name}, for example --config.data.data_dir=gs://BUCKET/tensorflow_datasets"
    )
  kind = sources.base_name(data.name)
  if kind == "folder":
    raise UserError(
      "--config.data.name=folder: class folders are not copied file by file; python -m shufflenet_jax.data.prepare"
      " makes a dataset of them that can be copied"
    )
  return _of_arrays(data) if kind == "arrays" else _of_tfds(data, kind)


def _of_arrays(data) -> NeededFiles:
  folder = storage.normalize(data.data_dir, "--config.data.data_dir=")
  wanted = {f"{split}.npz" for split in (data.train_split, data.eval_split)}
  try:
    files = [NeededFile(*found) for found in storage.versions(folder) if found[0] in wanted]
  except FileNotFoundError:
    files = []
  if missing := wanted - {file.name for file in files}:
    raise UserError(f"{storage.join(folder, min(missing))} does not exist; --config.data.data_dir=DIR looks elsewhere")
  return NeededFiles(folder, sorted(files, key=lambda file: file.name), None)


def _of_tfds(data, kind: str) -> NeededFiles:
  from shufflenet_jax.data.sources import digits, tfds  # which import TensorFlow

  folder = tfds.datasets_folder(data.data_dir)
  if kind == "digits":
    digits.prepare(folder)
  builder = tfds.find_builder(data.name, folder)
  wanted, num_examples = set(), 0
  for split in dict.fromkeys((data.train_split, data.eval_split)):
    instructions, count = tfds.files_of_split(data.name, builder, split)
    wanted |= {os.path.basename(file.filename) for file in instructions}
    num_examples += count
  own = str(builder.data_path)
  listing = list(storage.versions(own))
  tfds.check_present(data.name, builder, wanted, {name for name, _, _ in listing})
  unwanted = {name for split in builder.info.splits.values() for name in split.filenames} - wanted
  inside = own.removeprefix(folder.rstrip("/")).strip("/")
  files = [NeededFile(f"{inside}/{name}", *rest) for name, *rest in listing if name not in unwanted]
  return NeededFiles(folder, sorted(files, key=lambda file: file.name), num_examples)
