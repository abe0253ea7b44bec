"""A sharded TFDS dataset made of pictures, whole or continued."""

import dataclasses
import os
import re
import sys
import tempfile
from collections import Counter

from shufflenet_jax.data.class_names import match
from shufflenet_jax.errors import UserError
from shufflenet_jax.progress import ProgressLine

QUALITY = 90
MARKER = "dataset_info.json"  # without which a folder is no dataset to TFDS


@dataclasses.dataclass(frozen=True)
class Options:
  """The flags; see --help."""

  name: str
  train: str
  validation: str
  to: str
  short_side: int | None = None
  quality: int | None = None
  upright: bool = False
  shards: int | None = None
  allow_partial: bool = False
  skip_bad: int = 0


def prepare(options: Options) -> str:
  """Makes the dataset, or goes on with it; returns its folder.

  Raises:
    UserError: a source, a class, a picture or an option that won't do, or no room. What is complete stays.
  """
  _check_options(options)
  import tensorflow_datasets as tfds

  from shufflenet_jax import storage
  from shufflenet_jax.data.prepare import imagenet, shards

  version = "1.0.0"
  if options.name == "imagenet2012":
    version = str(tfds.builder_cls(options.name).VERSION)
    print(f"version {version}, that of {options.name} in the installed TFDS")
  elif options.name in (*tfds.list_builders(with_community_datasets=False), "digits"):
    # TFDS would look for its own dataset's configs there.
    raise UserError(f"--name={options.name} is the name of a known dataset; choose another")
  final = storage.join(storage.normalize(options.to, "--to="), options.name, version)
  complete = storage.is_file(storage.join(final, MARKER))
  work = f"{final}.incomplete"  # no version to TFDS
  foreign = storage.is_folder(final) and not storage.is_file(storage.join(final, shards.PLAN))
  if foreign and not storage.is_folder(work):  # which is there while a move in a bucket is not finished
    raise UserError(f"{final} is there and not made by this command; choose another --name or --to, or remove it")

  progress = ProgressLine(sys.stdout, terminal_seconds=0.2)
  splits = _open_sources(options, progress)
  of_imagenet = options.name == "imagenet2012" or any(source.of_imagenet for source in splits.values())
  if of_imagenet:
    for split, source in splits.items():
      names_and_labels = [(os.path.basename(p.name), p.label) for p in source.pictures]
      imagenet.check(split, source.path, names_and_labels, options.allow_partial)
    class_names = list(imagenet.class_names())
  else:
    class_names = _common_classes(*splits.values())
  dealt = {split: shards.deal(options.name, split, source.pictures, options.shards) for split, source in splits.items()}
  plan = _plan(options, version, splits, dealt)
  if complete:
    shards.check_same_plan(plan, final)
    storage.remove_folder(work)  # where the move was cut short by a kill
    shards.forget(final)
    print(f"{final} is complete and made of the same: nothing to do")
    return final

  features = tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(encoding_format="jpeg" if of_imagenet else None),
      "label": tfds.features.ClassLabel(names=class_names),
      "file_name": tfds.features.Text(),  # ImageNet's as in TFDS, n01440764_10026.JPEG; else with the class folder
    }
  )
  labels = {}
  for source in splits.values():
    found = sorted({p.label for p in source.pictures})
    labels |= {found[i]: label for i, label in match(found, class_names).items()}
  serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

  def to_record(picture):
    name = os.path.basename(picture.name) if of_imagenet else picture.name
    example = {"image": _treat(options, picture.read()), "label": labels[picture.label], "file_name": os.fsencode(name)}
    # As features.serialize_example, but that orders a record's fields by chance, anew in each process.
    return serializer.get_tf_example(features.encode_example(example)).SerializeToString(deterministic=True)

  try:
    storage.make_folder(work)
    with storage.locked(work):
      shards.check_same_plan(plan, work)
      _check_room(options, splits, work)
      written = iter(shards.write(work, [s for split in dealt.values() for s in split], to_record, progress.show))
      progress.clear()
      written = {split: [next(written) for _ in dealt[split]] for split in splits}
      bad = sorted(line for split in splits for shard in written[split] for line in shard.bad)
      _judge_bad(bad, options, work)
      with tempfile.TemporaryDirectory() as folder:
        shard_names = {shard.file_name for split in dealt.values() for shard in split}
        for name in shard_names:  # which TFDS looks for, and does not read
          storage.write_bytes(storage.join(folder, name), b"")
        tfds.folder_dataset.write_metadata(
          data_dir=folder,
          version=version,
          features=features,
          split_infos=[
            tfds.core.SplitInfo(split, [w.pictures for w in of_split], sum(w.record_bytes for w in of_split))
            for split, of_split in written.items()
          ],
          description=_description(options, len(class_names), len(bad)),
          supervised_keys=("image", "label"),
          homepage="https://image-net.org/" if of_imagenet else "",
          check_data=False,  # it would read one example; every shard was closed without an error
        )
        for name, _ in storage.walk(folder):
          if name not in shard_names:
            storage.write_bytes(storage.join(work, name), storage.read_bytes(storage.join(folder, name)))
      storage.move_folder(work, final, marker=MARKER)
      shards.forget(final)
  except storage.StorageError as error:
    raise type(error)(
      f"--to={options.to}: {error}; whole shards are kept, and with room and permission the same command continues"
    ) from None
  _report(options, final, splits, written, len(class_names))
  return final


def _check_options(options: Options) -> None:
  if not re.fullmatch(r"[a-z][a-z0-9_]*", options.name):  # TFDS looks for others under another spelling
    raise UserError(f"--name={options.name} is no name for a dataset; use a-z, 0-9 and _, a letter first")
  for flag in ("quality", "upright"):
    if getattr(options, flag) and not options.short_side:
      raise UserError(f"--{flag} needs --short_side: without it pictures are stored as they are")


def _open_sources(options: Options, progress: ProgressLine) -> dict:
  from shufflenet_jax.data.prepare import inputs

  splits = {}
  for split in ("train", "validation"):
    path = os.path.expanduser(getattr(options, split))
    splits[split] = inputs.open_source(
      f"--{split}", path, lambda count, split=split: progress.show(f"looking through {split}: {count:,} files")
    )
    progress.clear()
    print(f"{split}: {len(splits[split].pictures):,} pictures in {path} ({splits[split].kind})", flush=True)
    if splits[split].note:
      print(splits[split].note)
  return splits


def _common_classes(train, validation) -> list[str]:
  """Names of the training split's class folders, which the validation split's must be as well."""
  names, theirs = (sorted({p.label for p in source.pictures}) for source in (train, validation))
  matched, said = match(theirs, names), []
  in_both = set(matched.values())
  only_ours = [name for i, name in enumerate(names) if i not in in_both]
  only_theirs = [name for i, name in enumerate(theirs) if i not in matched]
  for split, names_of_one in (("training", only_ours), ("validation", only_theirs)):
    if names_of_one:
      more = f" and {len(names_of_one) - 5:,} more" if len(names_of_one) > 5 else ""
      said.append(f"only in {split}: {', '.join(names_of_one[:5])}{more}")
  if said:
    raise UserError(f"the classes of --train and --validation differ; {'; '.join(said)}")
  if len(names) == 1:
    raise UserError(f"--train={train.path} holds one class, {names[0]}; give what holds the class folders")
  odd = [name for name in names if name != name.strip() or not name.isprintable()]
  if odd:
    raise UserError(f"class folder {odd[0]!r} has a name that TFDS cannot keep; rename it")
  return names


def _plan(options: Options, version: str, splits: dict, dealt: dict) -> dict:
  """What decides the bytes of the dataset; --skip_bad and --allow_partial only decide whether there is one."""
  import hashlib

  treatment = "as they came"
  if options.short_side:
    treatment = f"short side {options.short_side}, quality {options.quality or QUALITY}"
    treatment += ", upright" if options.upright else ""
  plan = {"name": options.name, "version": version, "pictures": treatment}
  for split, source in splits.items():
    listing = hashlib.sha256()
    for p in source.pictures:
      listing.update(os.fsencode(f"{p.name}\0{p.label}\0{p.size}\n"))
    plan[f"{split} pictures"] = len(source.pictures)
    plan[f"{split} bytes"] = sum(p.size for p in source.pictures)
    plan[f"{split} names and sizes"] = f"sha256 {listing.hexdigest()}"
    plan[f"{split} shards"] = len(dealt[split])
  return plan


def _treat(options: Options, encoded: bytes) -> bytes:
  """A picture's bytes as they are stored."""
  from shufflenet_jax.data import pictures
  from shufflenet_jax.data.prepare import recode

  if not options.short_side:
    pictures.check(encoded)
    return encoded
  return recode.shrink(encoded, options.short_side, options.quality or QUALITY, options.upright)


def _check_room(options: Options, splits: dict, work: str) -> None:
  """Before hours of writing, where the size is known beforehand and the room is limited."""
  from shufflenet_jax import storage

  there = sum(size for _, size in storage.walk(work))
  needed = sum(p.size + 200 for source in splits.values() for p in source.pictures) - there  # 200: label and name
  free = storage.free_bytes(work)
  if not options.short_side and needed > free:
    raise UserError(
      f"--to={options.to} has {free / 1e9:,.1f} GB of room, {needed / 1e9:,.1f} GB are needed; make room, and the same"
      " command continues"
    )


def _judge_bad(bad: list[str], options: Options, work: str) -> None:
  """Lists the pictures that could not be decoded; more than --skip_bad of them are an error."""
  if not bad:
    return
  from shufflenet_jax import storage

  listing = storage.join(work, "skipped.txt")
  storage.write_bytes(listing, os.fsencode("".join(f"{line}\n" for line in bad)))
  if len(bad) > options.skip_bad:
    more = f" and {len(bad) - 5:,} more, all in {listing}" if len(bad) > 5 else ""
    raise UserError(
      f"{len(bad):,} pictures cannot be decoded: {'; '.join(bad[:5])}{more}; the same command with"
      f" --skip_bad={len(bad)} leaves them out and repeats no work; or repair them, remove {work} and begin again"
    )
  print(f"left out {len(bad):,} pictures that cannot be decoded (skipped.txt):", *bad, sep="\n  ")


def _description(options: Options, num_classes: int, num_bad: int) -> str:
  words = f"Pictures of {num_classes:,} classes, prepared by shufflenet_jax.data.prepare. "
  if options.short_side:
    from PIL import __version__

    words += (
      f"Those with a short side above {options.short_side} pixels were made smaller to it (Pillow {__version__},"
      f" bilinear with antialiasing) and stored as JPEG of quality {options.quality or QUALITY} with 4:2:0 chroma, RGB"
      " or grayscale; the others are stored as they came. EXIF orientation: "
      + ("pixels turned upright." if options.upright else "ignored, pixels as they came.")
    )
  else:
    words += "Stored byte for byte as they came; EXIF orientation is ignored."
  return words + (f" {num_bad:,} could not be decoded and are left out: skipped.txt." if num_bad else "")


def _report(options: Options, final: str, splits: dict, written: dict, num_classes: int) -> None:
  from shufflenet_jax import storage

  print(final)
  for split, source in splits.items():
    of_class = Counter(p.label for p in source.pictures).values()
    pictures, size = sum(w.pictures for w in written[split]), sum(w.file_bytes for w in written[split])
    print(
      f"  {split}: {pictures:,} pictures, {len(of_class):,} classes of {min(of_class):,} to {max(of_class):,},"
      f" {len(written[split]):,} shards, {size / 1e6:,.1f} MB"
      f" ({size / sum(p.size for p in source.pictures):.2f} of the source pictures)"
    )
  print(
    f"train on it with: --config.data.name={options.name} --config.data.data_dir={storage.normalize(options.to)}"
    f" --config.data.eval_split=validation --config.model.num_classes={num_classes}"
  )
