"""Makes a sharded TFDS dataset from pictures, or continues an unfinished one."""

import contextlib
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator

import PIL
import tensorflow_datasets as tfds

from shufflenet_jax import storage
from shufflenet_jax.data import pictures
from shufflenet_jax.data.prepare import classes, objects, plan, recode, shards
from shufflenet_jax.data.prepare.options import QUALITY, Options
from shufflenet_jax.data.prepare.shards import Result, Shard
from shufflenet_jax.data.prepare.source import Contents, Picture, Source
from shufflenet_jax.data.sources import SOURCES
from shufflenet_jax.data.sources.tfds import MARKER
from shufflenet_jax.errors import UserError
from shufflenet_jax.progress import ProgressLine


def prepare(options: Options) -> str:
  """Makes the dataset, or continues it; returns its folder.

  Raises:
    UserError: an option, a source, a class or a picture cannot be used, or there is no space. Complete shards remain.
  """
  version = _version(options.name)
  final = storage.join(storage.normalize(options.to, "--to="), options.name, version)
  work = f"{final}.incomplete"  # TFDS does not mistake this for a version
  is_complete = storage.is_file(storage.join(final, MARKER))
  is_ours = storage.is_file(storage.join(final, plan.FILE))
  # During a move within a bucket, both folders exist.
  if storage.is_folder(final) and not is_ours and not storage.is_folder(work):
    raise UserError(f"{final} exists and was not made by this command; choose another --name or --to, or remove it")

  progress = ProgressLine(sys.stdout, terminal_seconds=0.2)
  kind = objects if objects.are_wanted(options) else classes
  sources = _open_sources(kind, options, progress)
  contents = kind.contents(options, sources)
  split_shards = {
    split: shards.assign(options.name, split, source.pictures, options.shards) for split, source in sources.items()
  }
  dataset_plan = plan.make(options, version, sources, split_shards, contents.plan)
  if is_complete:
    plan.check_same(dataset_plan, final)
    storage.remove_folder(work)  # remains if a move was killed
    shards.remove_results(final)
    print(f"{final} is already complete and made from the same pictures: nothing to do")
    return final

  with _explained_storage(options):
    storage.make_folder(work)
    with storage.locked(work):
      plan.check_same(dataset_plan, work)
      _check_space(options, sources, work)
      to_record = _record_maker(options, contents)
      all_results = iter(shards.write(work, sum(split_shards.values(), []), to_record, progress.show))
      progress.clear()
      results = {split: [next(all_results) for _ in split_shards[split]] for split in sources}
      num_bad = _check_bad(results, options, work)
      _write_metadata(
        work,
        split_shards,
        results,
        version=version,
        features=contents.features,
        supervised_keys=contents.supervised_keys,
        description=_description(options, contents.title, num_bad),
        homepage=contents.homepage,
      )
      for name, content in contents.files.items():
        storage.write_bytes(storage.join(work, name), content)
      storage.move_folder(work, final, marker=MARKER)
      shards.remove_results(final)
  _report(options, final, sources, results, contents)
  return final


def _version(name: str) -> str:
  if name == "imagenet2012":
    version = str(tfds.builder_cls(name).VERSION)
    print(f"version {version}, that of {name} in the installed TFDS")
    return version
  if name in (*tfds.list_builders(with_community_datasets=False), *SOURCES):
    # This name would open the known dataset's own configs, or another kind of source.
    raise UserError(f"--name={name} is the name of a known dataset; choose another")
  return "1.0.0"


def _open_sources(kind: types.ModuleType, options: Options, progress: ProgressLine) -> dict[str, Source]:
  """Split -> its source; prints what was found."""
  sources = {}
  for split in ("train", "validation"):
    source = kind.open_source(
      options, split, lambda count, split=split: progress.show(f"looking through {split}: {count:,} files")
    )
    progress.clear()
    print(f"{split}: {len(source.pictures):,} pictures in {source.path} ({source.kind})", flush=True)
    if source.note:
      print(source.note)
    sources[split] = source
  return sources


def _record_maker(options: Options, contents: Contents) -> Callable[[Picture], bytes]:
  """Returns the function from a picture to its serialized example; that function may raise a `PictureError`."""
  features = contents.features
  serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

  def to_stored(encoded: bytes) -> bytes:
    if options.short_side:
      return recode.shrink(encoded, options.short_side, options.quality or QUALITY, options.upright)
    pictures.check(encoded)
    return encoded

  def to_record(picture: Picture) -> bytes:
    example = features.encode_example(contents.to_example(picture, to_stored(picture.read())))
    # features.serialize_example would do the same, but with the fields in an order that differs between processes.
    return serializer.get_tf_example(example).SerializeToString(deterministic=True)

  return to_record


@contextlib.contextmanager
def _explained_storage(options: Options) -> Iterator[None]:
  """Adds to a storage error which flag it concerns, and what happens to the work done so far."""
  try:
    yield
  except (storage.Refused, storage.Unavailable) as error:
    raise type(error)(
      f"--to={options.to}: {error}; complete shards are kept; the same command continues once there is space and"
      " permission"
    ) from None


def _check_space(options: Options, sources: dict[str, Source], work: str) -> None:
  """Raises a UserError if there is too little space, before hours of writing; does nothing if the size is not known."""
  written = sum(size for _, size in storage.walk(work))
  needed = sum(p.size + 200 for source in sources.values() for p in source.pictures) - written  # 200: labels and name
  free = storage.free_bytes(work)
  if not options.short_side and needed > free:
    raise UserError(
      f"--to={options.to} has {free / 1e9:,.1f} GB of free space, {needed / 1e9:,.1f} GB are needed; free some, and the"
      " same command continues"
    )


def _check_bad(results: dict[str, list[Result]], options: Options, work: str) -> int:
  """Lists the pictures that could not be decoded; returns their number, or raises a UserError above --skip_bad."""
  bad = sorted(line for of_split in results.values() for result in of_split for line in result.bad)
  if not bad:
    return 0
  listing = storage.join(work, "skipped.txt")
  storage.write_bytes(listing, os.fsencode("".join(f"{line}\n" for line in bad)))
  if len(bad) > options.skip_bad:
    more = f" and {len(bad) - 5:,} more, all in {listing}" if len(bad) > 5 else ""
    raise UserError(
      f"{len(bad):,} pictures cannot be decoded: {'; '.join(bad[:5])}{more}; the same command with"
      f" --skip_bad={len(bad)} leaves them out and repeats no work; or repair them, remove {work} and begin again"
    )
  print(f"left out {len(bad):,} pictures that cannot be decoded (skipped.txt):", *bad, sep="\n  ")
  return len(bad)


def _write_metadata(work: str, split_shards: dict[str, list[Shard]], results: dict[str, list[Result]], **info) -> None:
  """Writes the files by which TFDS recognises a dataset; `info` are arguments of TFDS's `write_metadata`."""
  shard_names = {shard.file_name for of_split in split_shards.values() for shard in of_split}
  with tempfile.TemporaryDirectory() as folder:
    for name in shard_names:  # TFDS looks for these files, but does not read them
      storage.write_bytes(storage.join(folder, name), b"")
    tfds.folder_dataset.write_metadata(
      data_dir=folder,
      split_infos=[
        tfds.core.SplitInfo(split, [r.pictures for r in of_split], sum(r.record_bytes for r in of_split))
        for split, of_split in results.items()
      ],
      check_data=False,  # it would read one example, but we know that every shard was closed without an error
      **info,
    )
    for name, _ in storage.walk(folder):
      if name not in shard_names:
        storage.write_bytes(storage.join(work, name), storage.read_bytes(storage.join(folder, name)))


def _description(options: Options, title: str, num_bad: int) -> str:
  text = f"{title}, prepared by shufflenet_jax.data.prepare. "
  if options.short_side:
    text += (
      f"Those with a short side above {options.short_side} pixels were shrunk to it (Pillow {PIL.__version__}, bilinear"
      f" with antialiasing) and stored as JPEG of quality {options.quality or QUALITY} with 4:2:0 chroma, RGB or"
      " grayscale; the others are stored byte for byte. EXIF orientation: "
      + ("pixels turned upright." if options.upright else "ignored, pixels not turned.")
    )
  else:
    text += "Stored byte for byte; the EXIF orientation is ignored."
  return text + (f" {num_bad:,} could not be decoded and are left out: skipped.txt." if num_bad else "")


def _report(
  options: Options, final: str, sources: dict[str, Source], results: dict[str, list[Result]], contents: Contents
) -> None:
  print(final)
  for split, source in sources.items():
    num_pictures, file_bytes = (sum(getattr(r, key) for r in results[split]) for key in ("pictures", "file_bytes"))
    print(
      f"  {split}: {num_pictures:,} pictures, {contents.describe(source)}, {len(results[split]):,} shards,"
      f" {file_bytes / 1e6:,.1f} MB"
      f" ({file_bytes / sum(p.size for p in source.pictures):.2f} of the source pictures)"
    )
  config = f"--config={contents.config} " if contents.config else ""
  print(
    f"train on it with: {config}--config.data.name={options.name}"
    f" --config.data.data_dir={storage.normalize(options.to)} --config.data.eval_split=validation"
    f" --config.model.num_classes={contents.num_classes}"
  )
