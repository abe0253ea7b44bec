"""Makes a sharded TFDS dataset from pictures, or continues an unfinished one."""

import contextlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator

import PIL
import tensorflow_datasets as tfds

from shufflenet_jax import storage
from shufflenet_jax.data import pictures
from shufflenet_jax.data.class_names import match
from shufflenet_jax.data.prepare import imagenet, inputs, plan, recode, shards
from shufflenet_jax.data.prepare.inputs import Picture, Source
from shufflenet_jax.data.prepare.options import QUALITY, Options
from shufflenet_jax.data.prepare.shards import Result, Shard
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
  sources = _open_sources(options, progress)
  of_imagenet = options.name == "imagenet2012" or any(source.of_imagenet for source in sources.values())
  class_names = _check_imagenet(sources, options.allow_partial) if of_imagenet else _common_classes(**sources)
  split_shards = {
    split: shards.assign(options.name, split, source.pictures, options.shards) for split, source in sources.items()
  }
  dataset_plan = plan.make(options, version, sources, split_shards)
  if is_complete:
    plan.check_same(dataset_plan, final)
    storage.remove_folder(work)  # remains if a move was killed
    shards.remove_results(final)
    print(f"{final} is already complete and made from the same pictures: nothing to do")
    return final

  features = _features(class_names, of_imagenet)
  with _explained_storage(options):
    storage.make_folder(work)
    with storage.locked(work):
      plan.check_same(dataset_plan, work)
      _check_space(options, sources, work)
      to_record = _record_maker(options, features, _labels(sources, class_names), of_imagenet)
      all_results = iter(shards.write(work, sum(split_shards.values(), []), to_record, progress.show))
      progress.clear()
      results = {split: [next(all_results) for _ in split_shards[split]] for split in sources}
      num_bad = _check_bad(results, options, work)
      _write_metadata(
        work,
        split_shards,
        results,
        version=version,
        features=features,
        description=_description(options, len(class_names), num_bad),
        homepage="https://image-net.org/" if of_imagenet else "",
      )
      storage.move_folder(work, final, marker=MARKER)
      shards.remove_results(final)
  _report(options, final, sources, results, len(class_names))
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


def _open_sources(options: Options, progress: ProgressLine) -> dict[str, Source]:
  """Split -> its source; prints what was found."""
  sources = {}
  for split in ("train", "validation"):
    path = os.path.expanduser(getattr(options, split))
    source = inputs.open_source(
      f"--{split}", path, lambda count, split=split: progress.show(f"looking through {split}: {count:,} files")
    )
    progress.clear()
    print(f"{split}: {len(source.pictures):,} pictures in {path} ({source.kind})", flush=True)
    if source.note:
      print(source.note)
    sources[split] = source
  return sources


def _check_imagenet(sources: dict[str, Source], allow_partial: bool) -> list[str]:
  """ImageNet's class names, after checking that the sources are ImageNet's."""
  for split, source in sources.items():
    names_and_labels = [(os.path.basename(p.name), p.label) for p in source.pictures]
    imagenet.check(split, source.path, names_and_labels, allow_partial)
  return list(imagenet.class_names())


def _common_classes(train: Source, validation: Source) -> list[str]:
  """Names of the training split's class folders; raises a UserError if the validation split has others."""
  names, validation_names = (sorted({p.label for p in source.pictures}) for source in (train, validation))
  matched = match(validation_names, names)
  in_both = set(matched.values())
  only_in = {
    "training": [name for i, name in enumerate(names) if i not in in_both],
    "validation": [name for i, name in enumerate(validation_names) if i not in matched],
  }
  differences = []
  for split, only in only_in.items():
    if only:
      more = f" and {len(only) - 5:,} more" if len(only) > 5 else ""
      differences.append(f"only in {split}: {', '.join(only[:5])}{more}")
  if differences:
    raise UserError(f"the classes of --train and --validation differ; {'; '.join(differences)}")
  if len(names) == 1:
    raise UserError(f"--train={train.path} holds one class, {names[0]}; give the folder that holds the class folders")
  odd = [name for name in names if name != name.strip() or not name.isprintable()]
  if odd:
    raise UserError(f"class folder {odd[0]!r} has a name that TFDS cannot store; rename it")
  return names


def _labels(sources: dict[str, Source], class_names: list[str]) -> dict[str, int]:
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


def _record_maker(
  options: Options, features: tfds.features.FeaturesDict, labels: dict[str, int], of_imagenet: bool
) -> Callable[[Picture], bytes]:
  """Returns the function from a picture to its serialized example; that function may raise a `PictureError`."""
  serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

  def to_stored(encoded: bytes) -> bytes:
    if options.short_side:
      return recode.shrink(encoded, options.short_side, options.quality or QUALITY, options.upright)
    pictures.check(encoded)
    return encoded

  def to_record(picture: Picture) -> bytes:
    name = os.path.basename(picture.name) if of_imagenet else picture.name
    image, label = to_stored(picture.read()), labels[picture.label]
    example = features.encode_example({"image": image, "label": label, "file_name": os.fsencode(name)})
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
  """Raises a UserError before hours of writing, if the size is known in advance and the space is limited."""
  written = sum(size for _, size in storage.walk(work))
  needed = sum(p.size + 200 for source in sources.values() for p in source.pictures) - written  # 200: label and name
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
      supervised_keys=("image", "label"),
      check_data=False,  # it would read one example, but we know that every shard was closed without an error
      **info,
    )
    for name, _ in storage.walk(folder):
      if name not in shard_names:
        storage.write_bytes(storage.join(work, name), storage.read_bytes(storage.join(folder, name)))


def _description(options: Options, num_classes: int, num_bad: int) -> str:
  text = f"Pictures of {num_classes:,} classes, prepared by shufflenet_jax.data.prepare. "
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
  options: Options, final: str, sources: dict[str, Source], results: dict[str, list[Result]], num_classes: int
) -> None:
  print(final)
  for split, source in sources.items():
    class_sizes = Counter(p.label for p in source.pictures).values()
    num_pictures, file_bytes = (sum(getattr(r, key) for r in results[split]) for key in ("pictures", "file_bytes"))
    print(
      f"  {split}: {num_pictures:,} pictures, {len(class_sizes):,} classes of {min(class_sizes):,} to"
      f" {max(class_sizes):,}, {len(results[split]):,} shards, {file_bytes / 1e6:,.1f} MB"
      f" ({file_bytes / sum(p.size for p in source.pictures):.2f} of the source pictures)"
    )
  print(
    f"train on it with: --config.data.name={options.name} --config.data.data_dir={storage.normalize(options.to)}"
    f" --config.data.eval_split=validation --config.model.num_classes={num_classes}"
  )
