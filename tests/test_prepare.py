"""Every picture once, with its own label, whatever it comes from and however often the work was stopped."""

import dataclasses
import errno
import fcntl
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import ml_collections
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from shufflenet_jax.data import datasets, imagenet, pipeline, recode, sources
from shufflenet_jax.data.prepare import Options, prepare
from shufflenet_jax.errors import UserError

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


def picture(height=20, width=30, kind="JPEG", mode="RGB", **save) -> bytes:
  """A picture of coarse noise, unlike any other."""
  coarse = Image.fromarray(RNG.integers(0, 256, (4, 6, 3), np.uint8))
  buffer = io.BytesIO()
  coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(buffer, kind, **save)
  return buffer.getvalue()


def put(path: Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


@pytest.fixture
def photos(tmp_path):
  """20 + 4 pictures of two classes, one of them deeper and one a PNG."""
  for split, count in (("train", 10), ("val", 2)):
    for of_class in ("daisy", "rose"):
      for i in range(count):
        put(tmp_path / "photos" / split / of_class / f"{i}.jpg", picture())
  put(tmp_path / "photos/train/rose/old/1.png", picture(kind="PNG"))
  (tmp_path / "photos/train/rose/9.jpg").unlink()
  return tmp_path / "photos"


@pytest.fixture
def options(photos, tmp_path):
  return Options("flowers", str(photos / "train"), str(photos / "val"), str(tmp_path / "to"))


def with_(options, **changes):
  return dataclasses.replace(options, **changes)


def open_tfds(options, split, num_classes):
  data = ml_collections.ConfigDict({"name": options.name, "data_dir": options.to})
  return datasets.open_split(data, split, num_classes)


def examples(options, split="train", num_classes=2):
  """{file name: (encoded picture, class)} as our training reads it, and each only once."""
  opened = open_tfds(options, split, num_classes)
  builder = tfds.core.read_only_builder.builder_from_files(options.name, data_dir=options.to)
  seen = {}
  chunks = range(len(opened.sizes))
  for _, record in opened.read(tf.constant(chunks, tf.int64), tf.zeros(len(chunks), tf.int64), opened.sizes):
    encoded, label = opened.parse(record)
    raw = builder.info.features.deserialize_example(record, decoders={"image": tfds.decode.SkipDecoding()})
    name = raw["file_name"].numpy().decode()
    assert name not in seen
    seen[name] = (encoded.numpy(), opened.class_names[int(label)])
  assert len(seen) == opened.num_examples
  return seen


def files(folder) -> dict[str, bytes]:
  return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def tar(path: Path, content: dict[str, bytes]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, "w") as out:
    for name, data in content.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      out.addfile(member, io.BytesIO(data))


def tar_of(folder: Path, prefix: str) -> dict[str, bytes]:
  paths = sorted((p for p in folder.rglob("*") if p.is_file()), reverse=True)
  return {f"{prefix}{p.relative_to(folder)}": p.read_bytes() for p in paths}


def test_a_folder_becomes_a_dataset_of_the_same_bytes(options, photos, capsys):
  put(photos / "train/rose/.hidden.jpg", b"")
  put(photos / "train/rose/notes.txt", b"")
  folder = prepare(options)
  assert folder == os.path.join(options.to, "flowers", "1.0.0")
  for split, source in (("train", photos / "train"), ("validation", photos / "val")):
    pictures = [p for p in source.rglob("*.*g") if not p.name.startswith(".")]
    expected = {str(p.relative_to(source)): (p.read_bytes(), p.relative_to(source).parts[0]) for p in pictures}
    assert examples(options, split) == expected
  assert not os.path.exists(f"{folder}.incomplete")
  told = capsys.readouterr().out
  assert "passed over 1 files that are no pictures in a class folder, rose/notes.txt first" in told
  assert "train: 20 pictures, 2 classes of 10 to 10, 16 shards" in told
  assert "--config.data.name=flowers" in told
  assert "--config.model.num_classes=2" in told


def test_the_pipelines_read_it(options, config):
  prepare(options)
  split = open_tfds(options, "validation", 2)
  [batch] = pipeline.eval_batches(split, config.data, batch_size=4, num_classes=2)
  assert batch["mask"].all()
  assert sorted(batch["label"]) == [0, 0, 1, 1]


def test_records_have_their_fields_in_order(options):
  """Else another process, after a stop, would write other bytes for the same."""
  folder = prepare(options)
  for path in Path(folder).glob("*.tfrecord*"):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      assert record == tf.train.Example.FromString(record).SerializeToString(deterministic=True)


def test_records_are_shuffled_over_the_split(options):
  prepare(options)
  names = list(examples(options))
  assert sorted(names) != names
  assert {name[0] for name in names[:6]} == {"d", "r"}


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_gives_the_same_shards_as_the_folder(options, photos, tmp_path, prefix):
  for split in ("train", "val"):
    hidden = {f"{prefix}._rose": b"", f"{prefix}rose/._1.jpg": b"as macOS adds them"}
    tar(tmp_path / f"{split}.tar", tar_of(photos / split, prefix) | hidden)
  of_tar = with_(options, train=f"{tmp_path}/train.tar", validation=f"{tmp_path}/val.tar", to=f"{tmp_path}/of_tar")
  assert files(prepare(of_tar)) == files(prepare(options))


WNIDS = ("n01440764", "n01443537", "n15075141")  # labels 0, 1 and 999
VALIDATION = (49_999, 293, 17, 9111)  # two of them are of WNIDS[0]


@pytest.fixture
def part_of_imagenet(tmp_path):
  """Tars in ImageNet's own form, of three classes, in no order."""
  train = {}
  for wnid in reversed(WNIDS):
    tar(tmp_path / "class.tar", {f"{wnid}_{i}.JPEG": picture() for i in (3, 1, 2)})
    train[f"{wnid}.tar"] = (tmp_path / "class.tar").read_bytes()
  tar(tmp_path / "train.tar", train)
  tar(tmp_path / "val.tar", {f"ILSVRC2012_val_{i:08}.JPEG": picture() for i in VALIDATION})
  return Options("imagenet2012", f"{tmp_path}/train.tar", f"{tmp_path}/val.tar", f"{tmp_path}/to", allow_partial=True)


def test_imagenets_tars_are_labelled_by_name_and_number(part_of_imagenet, capsys):
  version = str(tfds.builder_cls("imagenet2012").VERSION)
  assert prepare(part_of_imagenet) == os.path.join(part_of_imagenet.to, "imagenet2012", version)
  assert f"version {version}" in capsys.readouterr().out
  train = examples(part_of_imagenet, "train", 1000)
  assert {name: label for name, (_, label) in train.items()} == {f"{w}_{i}.JPEG": w for w in WNIDS for i in (1, 2, 3)}
  official = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
  validation = examples(part_of_imagenet, "validation", 1000)
  assert {n: label for n, (_, label) in validation.items()} == {
    f"ILSVRC2012_val_{i:08}.JPEG": official[i - 1] for i in VALIDATION
  }
  assert validation["ILSVRC2012_val_00000293.JPEG"][1] == "n01440764"
  with tarfile.open(part_of_imagenet.validation) as whole:
    for name, (encoded, _) in validation.items():
      assert whole.extractfile(name).read() == encoded


def test_class_tars_in_a_folder_are_read_as_well(part_of_imagenet, tmp_path):
  with tarfile.open(part_of_imagenet.train) as whole:
    whole.extractall(tmp_path / "train", filter="data")
  of_folder = with_(part_of_imagenet, train=f"{tmp_path}/train", to=f"{tmp_path}/of_folder")
  assert files(prepare(of_folder)) == files(prepare(part_of_imagenet))


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet_part"])  # the form alone tells that it is ImageNet
def test_a_part_of_imagenet_is_an_error_unless_allowed(part_of_imagenet, tmp_path, name):
  with pytest.raises(UserError, match="lacks 997 of ImageNet's 1,000 classes, n01484850 first; .*--allow_partial"):
    prepare(with_(part_of_imagenet, name=name, allow_partial=False))
  assert not (tmp_path / "to").exists()


def test_imagenet_is_1281167_and_50000_pictures_of_1000_classes():
  train = [("", name) for name in imagenet.class_names()] * 1282
  imagenet.check("train", "DIR", train[:1_281_167], False)
  for count in (1_281_166, 1_281_168):
    with pytest.raises(UserError, match=f"holds {count:,} pictures, ImageNet's train split 1,281,167; fetch it anew"):
      imagenet.check("train", "DIR", train[:count], False)
  names = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 50_001)]
  validation = [(name, imagenet.validation_label(name)) for name in names]
  imagenet.check("validation", "DIR", validation, False)
  part = validation[:2] + validation[4:]
  with pytest.raises(UserError, match="holds 49,998 of .* 2 are missing, ILSVRC2012_val_00000003.JPEG first; fetch"):
    imagenet.check("validation", "DIR", part, False)
  imagenet.check("validation", "DIR", part, True)
  with pytest.raises(UserError, match="holds 50,001 pictures, ImageNet's validation split 50,000"):
    imagenet.check("validation", "DIR", [*validation, ("more.JPEG", "n01440764")], False)


def test_foreign_and_misplaced_pictures_are_no_imagenet(part_of_imagenet, photos, tmp_path):
  with pytest.raises(UserError, match="holds 2 classes that ImageNet has not, daisy first"):
    prepare(with_(part_of_imagenet, train=str(photos / "train")))
  put(tmp_path / "val/n01440764/ILSVRC2012_val_00000001.JPEG", picture())
  with pytest.raises(UserError, match="00001.JPEG is in class folder n01440764; ImageNet's list says n01751748"):
    prepare(with_(part_of_imagenet, validation=str(tmp_path / "val")))
  tar(tmp_path / "beyond.tar", {"ILSVRC2012_val_00050001.JPEG": picture()})
  with pytest.raises(UserError, match="00050001.JPEG is none of ImageNet's validation pictures"):
    prepare(with_(part_of_imagenet, validation=str(tmp_path / "beyond.tar")))


def test_the_official_list_agrees_with_imagenettes_folders():
  path = ROOT.parent / "shared" / "data" / "imagenette_val.tar"
  if not path.exists():
    pytest.skip("needs Imagenette beside the project, ../shared/data/imagenette_val.tar")
  opened = sources.open_source("--validation", str(path), lambda count: None)
  assert len(opened.pictures) == 3925
  for p in opened.pictures:
    if imagenet.VALIDATION_NAME.fullmatch(os.path.basename(p.name)):
      assert imagenet.validation_label(os.path.basename(p.name)) == p.label


def stop_at(monkeypatch, count, error):
  """The picture read after `count` others raises."""
  left, read = iter(range(count)), sources.Picture.read

  def read_or_raise(self):
    if next(left, None) is None:
      raise error
    return read(self)

  monkeypatch.setattr(sources.Picture, "read", read_or_raise)


def test_goes_on_after_a_stop_and_gives_the_same_bytes(options, tmp_path, monkeypatch, capsys):
  options = with_(options, shards=5)
  expected = files(prepare(with_(options, to=f"{tmp_path}/at_once")))
  stop_at(monkeypatch, 12, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    prepare(options)
  monkeypatch.undo()
  work = Path(options.to, "flowers", "1.0.0.incomplete")
  with pytest.raises(tfds.core.registered.DatasetNotFoundError):
    tfds.core.read_only_builder.builder_from_files("flowers", data_dir=options.to)
  assert not [p.name for p in work.iterdir() if p.name.endswith(".partial")]
  kept = {p.name: p.stat().st_mtime_ns for p in work.glob("*.tfrecord*")}
  assert 1 <= len(kept) <= 9
  (work / f"{max(kept)}.partial").write_bytes(b"left by a kill")
  (work / min(kept)).write_bytes(b"cut short by a crash")
  capsys.readouterr()
  folder = Path(prepare(options))
  assert f"{len(kept) - 1} of 9 shards are there from before" in capsys.readouterr().out
  assert files(folder) == expected
  for name, written_at in kept.items():
    assert (folder.joinpath(name).stat().st_mtime_ns == written_at) == (name != min(kept))


def test_another_plan_is_refused(options, photos, monkeypatch, capsys):
  stop_at(monkeypatch, 12, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    prepare(options)
  monkeypatch.undo()
  work = Path(options.to, "flowers", "1.0.0.incomplete")
  before = files_of_tree(work)
  with pytest.raises(UserError, match="begun from something else: pictures: as they came there, short side 16, .* now"):
    prepare(with_(options, short_side=16))
  with pytest.raises(UserError, match="train shards: 16 there, 3 now"):
    prepare(with_(options, shards=3))
  assert files_of_tree(work) == before
  folder = prepare(options)
  before = files_of_tree(folder)
  assert prepare(options) == folder
  assert "is complete and made of the same: nothing to do" in capsys.readouterr().out
  (photos / "val/rose/0.jpg").rename(photos / "val/rose/7.jpg")
  with pytest.raises(UserError, match="begun from something else: validation names and sizes: sha256 "):
    prepare(options)
  assert files_of_tree(folder) == before


def files_of_tree(folder):
  return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_a_dataset_of_somebody_else_is_left_alone(options):
  put(Path(options.to, "flowers/1.0.0/dataset_info.json"), b"theirs")
  with pytest.raises(UserError, match="is there and not made by this command"):
    prepare(options)
  assert files(Path(options.to, "flowers/1.0.0")) == {"dataset_info.json": b"theirs"}


def test_two_runs_at_a_time_are_kept_apart(options):
  lock = Path(options.to, "flowers/1.0.0.incomplete/done/lock")
  put(lock, b"")
  with open(lock) as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another run is writing .*1.0.0.incomplete; wait for it"):
      prepare(options)


def opened(encoded):
  image = Image.open(io.BytesIO(encoded))
  image.load()
  return image


def test_only_larger_pictures_shrink_and_to_the_short_side(options, photos):
  put(photos / "train/rose/large.jpg", picture(90, 61))
  put(photos / "train/rose/large.png", picture(48, 100, kind="PNG"))
  prepare(with_(options, short_side=24, quality=70))
  seen = examples(options)
  assert opened(seen["rose/large.jpg"][0]).size == (24, 35)  # 90 * 24 / 61 = 35.4
  assert opened(seen["rose/large.png"][0]).size == (50, 24)
  assert opened(seen["rose/large.png"][0]).format == "JPEG"
  assert seen["rose/1.jpg"][0] == (photos / "train/rose/1.jpg").read_bytes()
  assert seen["rose/old/1.png"][0] == (photos / "train/rose/old/1.png").read_bytes()
  description = tfds.core.read_only_builder.builder_from_files("flowers", data_dir=options.to).info.description
  assert "short side above 24 pixels" in description
  assert "JPEG of quality 70 with 4:2:0 chroma" in description


@pytest.mark.parametrize(
  ("kind", "mode", "expected"),
  [
    ("JPEG", "RGB", "RGB"),
    ("JPEG", "CMYK", "RGB"),
    ("JPEG", "L", "L"),
    ("PNG", "RGBA", "RGB"),
    ("PNG", "LA", "L"),
    ("PNG", "P", "RGB"),
    ("PNG", "1", "L"),
    ("GIF", "P", "RGB"),
    ("WEBP", "RGBA", "RGB"),
    ("BMP", "RGB", "RGB"),
  ],
)
def test_every_kind_of_picture_keeps_its_colours(kind, mode, expected):
  encoded = picture(80, 120, kind, mode)
  small = opened(recode.shrink(encoded, 40, 95, upright=False))
  assert (small.format, small.mode, small.size) == ("JPEG", expected, (60, 40))
  # TensorFlow, which would have read the original, is the judge.
  whole = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  judge = tf.image.resize(whole, (40, 60), antialias=True).numpy()
  assert np.abs(np.asarray(small.convert("RGB"), float) - judge).mean() < (9 if mode == "1" else 4)


def test_sixteen_bits_keep_the_upper_eight():
  values = np.linspace(0, 65535, 80 * 120).reshape(80, 120).astype(np.uint16)
  small = opened(recode.shrink(tf.io.encode_png(values[..., None]).numpy(), 40, 95, upright=False))
  assert small.mode == "L"
  judge = tf.image.resize((values >> 8)[..., None], (40, 60), antialias=True).numpy()[..., 0]
  assert np.abs(np.asarray(small, float) - judge).mean() < 2


def test_transparent_palettes_shrink_without_a_warning():
  image = Image.fromarray(np.arange(80 * 120, dtype=np.uint8).reshape(80, 120)).convert("P")
  buffer = io.BytesIO()
  image.save(buffer, "PNG", transparency=bytes(range(256)))
  assert opened(recode.shrink(buffer.getvalue(), 40, 90, upright=False)).mode == "RGB"


def test_shrinks_as_evaluation_does():
  from shufflenet_jax.data import augment

  encoded = picture(97, 143, "PNG")
  small = np.asarray(opened(recode.shrink(encoded, 40, 100, upright=False)), float)
  judge = augment._resize_short_side(augment.decode(encoded), 40, antialias=True).numpy()
  assert small.shape == judge.shape
  assert np.abs(small - judge).mean() < 2


@pytest.mark.parametrize("height", [80, 20])
def test_orientation_is_baked_in_only_when_asked(height):
  exif = Image.Exif()
  exif[0x0112] = 6  # the right side of the scene is stored on top
  encoded = picture(height, 120, exif=exif)
  plain = opened(recode.shrink(encoded, 40, 95, upright=False))
  turned = opened(recode.shrink(encoded, 40, 95, upright=True))
  assert plain.size == ((60, 40) if height == 80 else (120, 20))
  assert turned.size == plain.size[::-1]
  assert turned.getexif().get(0x0112, 1) == 1  # else a viewer would turn it again
  expected = np.rot90(np.asarray(plain, float), -1)
  assert np.abs(np.asarray(turned, float) - expected).mean() < 5


BAD = {"rose/text.jpg": lambda: b"no picture", "daisy/cut.jpg": lambda: picture(200, 300)[:-2000]}
BAD |= {"daisy/empty.jpg": lambda: b"", "daisy/cut.png": lambda: picture(kind="PNG")[:-300]}


@pytest.mark.parametrize("short_side", [None, 16])
def test_bad_pictures_are_named_and_can_be_skipped(options, photos, short_side, monkeypatch):
  options = with_(options, short_side=short_side)
  for name, content in BAD.items():
    put(photos / "train" / name, content())
  with pytest.raises(UserError) as raised:
    prepare(with_(options, skip_bad=3))
  message = str(raised.value)
  assert message.startswith("4 pictures cannot be decoded: ")
  assert all(f"{name}: " in message for name in BAD)
  assert "--skip_bad=4 leaves them out" in message
  assert " object at 0x" not in message
  assert not Path(options.to, "flowers/1.0.0").exists()
  stop_at(monkeypatch, 0, AssertionError("read again"))
  folder = prepare(with_(options, skip_bad=4))
  assert len(examples(options)) == 20
  assert sorted(line.split(": ")[0] for line in Path(folder, "skipped.txt").read_text().splitlines()) == sorted(BAD)


def test_bytes_after_the_end_are_no_fault_but_a_thumbnails_end_is_no_end():
  recode.check(picture() + bytes(5000))
  cut = picture(200, 300)[:-2000]
  with pytest.raises(recode.PictureError, match="truncated"):
    recode.check(cut[:2] + b"\xff\xe1\x00\x04\xff\xd9" + cut[2:])


def spoil(path, change):
  return lambda photos: change(photos / path)


@pytest.mark.parametrize(
  ("change", "flags", "message"),
  [
    (None, {"name": "Flowers"}, "--name=Flowers is no name for a dataset"),
    (None, {"name": "flowers-2"}, "is no name for a dataset"),
    (None, {"name": "mnist"}, "--name=mnist is the name of a known dataset"),
    (None, {"name": "digits"}, "--name=digits is the name of a known dataset"),
    (None, {"quality": 80}, "--quality needs --short_side"),
    (None, {"upright": True}, "--upright needs --short_side"),
    (None, {"to": "gs://bucket/tfds"}, "is no local folder"),
    (None, {"train": "absent"}, "--train=absent does not exist"),
    (
      spoil("val/rose", lambda p: p.rename(p.parent / "lily")),
      {},
      "differ; only in training: rose; only in validation: lily",
    ),
    (spoil("train/lily", lambda p: p.mkdir()), {}, "1 class folders hold no pictures .*, lily first"),
    (spoil("train/rose", lambda p: shutil.rmtree(p)), {}, "differ; only in validation: rose$"),
    (spoil("val/lily", lambda p: p.symlink_to("nowhere")), {}, "lily: No such file"),
    (spoil("val", lambda p: [shutil.rmtree(q) for q in p.iterdir()]), {}, "val holds no pictures .* in class folders"),
  ],
)
def test_what_will_not_do_in_one_line_before_anything_is_written(options, photos, change, flags, message):
  if change:
    change(photos)
  options = with_(options, **flags)
  with pytest.raises(UserError, match=message) as raised:
    prepare(options)
  assert "\n" not in str(raised.value)
  assert not os.path.exists(options.to)


def test_one_class_is_a_folder_too_high(options, photos):
  with pytest.raises(UserError, match="holds one class, train; give what holds the class folders"):
    shutil.rmtree(photos / "val")
    prepare(with_(options, train=str(photos), validation=str(photos)))


@pytest.mark.parametrize("flag", ["train", "validation"])
def test_a_cut_tar_is_told_from_a_whole_one(part_of_imagenet, flag):
  path = Path(getattr(part_of_imagenet, flag))
  whole = path.read_bytes()
  with tarfile.open(path) as intact:
    intact.getmembers()
    end = intact.offset  # a block of zeros follows
  for kept in (0, 100, 700, end // 3, end // 2, end - 512, end - 1, end, end + 511):
    path.write_bytes(whole[:kept])
    with pytest.raises(UserError, match=f"{path.name} is (cut short or damaged|no tar, or a compressed one)"):
      sources.open_source(flag, str(path), id)
  path.write_bytes(whole[: end + 512])
  assert len(sources.open_source(flag, str(path), id).pictures) == (9 if flag == "train" else 4)


def test_a_cut_tar_within_a_tar_is_found(part_of_imagenet, tmp_path):
  with tarfile.open(part_of_imagenet.train) as intact:
    inner = {m.name: intact.extractfile(m).read() for m in intact}
  inner["n01443537.tar"] = inner["n01443537.tar"][:1536]
  tar(Path(part_of_imagenet.train), inner)
  with pytest.raises(UserError, match="train.tar is cut short or damaged within bytes"):
    sources.open_source("--train", part_of_imagenet.train, id)


def test_a_damaged_header_is_no_end(options, photos, tmp_path):
  path = tmp_path / "train.tar"
  tar(path, tar_of(photos / "train", ""))
  whole = bytearray(path.read_bytes())
  with tarfile.open(path) as intact:
    at = intact.getmembers()[10].offset
  whole[at : at + 100] = b"x" * 100
  path.write_bytes(whole)
  with pytest.raises(UserError, match="train.tar is cut short or damaged"):
    prepare(with_(options, train=str(path)))


def test_a_compressed_tar_is_named_so(options, tmp_path):
  with tarfile.open(tmp_path / "train.tgz", "w:gz"):
    pass
  with pytest.raises(UserError, match="train.tgz is no tar, or a compressed one"):
    prepare(with_(options, train=f"{tmp_path}/train.tgz"))


class FullDisk(tf.io.TFRecordWriter):
  """Takes three records."""

  def __init__(self, path):
    super().__init__(path)
    self.left = 3

  def write(self, record):
    self.left -= 1
    if not self.left:
      raise tf.errors.ResourceExhaustedError(None, None, "shard; No space left on device")
    super().write(record)


def test_a_full_disk_keeps_what_is_whole(options, monkeypatch, tmp_path):
  expected = files(prepare(with_(options, to=f"{tmp_path}/roomy")))
  monkeypatch.setattr(tf.io, "TFRecordWriter", FullDisk)  # train shards of 1 or 2 pictures fit, not all
  options = with_(options, shards=8)
  with pytest.raises(UserError, match="cannot be written: .*No space left on device; .* the same command goes on"):
    prepare(options)
  work = Path(options.to, "flowers/1.0.0.incomplete")
  assert not list(work.glob("*.partial"))
  monkeypatch.undo()
  assert len(files(prepare(options))) == len(expected) - 8
  assert len(examples(options)) == 20


def test_too_little_room_is_said_before_writing(options, monkeypatch):
  monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
  with pytest.raises(UserError, match="has 0.0 GB of room, 0.0 GB are needed"):
    prepare(options)


def test_a_place_that_cannot_be_written(options, tmp_path):
  (tmp_path / "to").write_text("a file")
  with pytest.raises(UserError, match="--to=.* cannot be written: .*: (Not a directory|File exists)"):
    prepare(options)


def test_a_source_that_goes_away_is_named(options, monkeypatch, photos):
  stop_at(monkeypatch, 3, OSError(errno.EIO, "Input/output error"))
  with pytest.raises(UserError, match="Input/output error"):
    prepare(options)
  monkeypatch.undo()
  (picture_of_daisy,) = [
    p for p in sources.open_source("--train", options.train, id).pictures if p.name == "daisy/1.jpg"
  ]
  put(photos / "train/daisy/1.jpg", b"short")
  with pytest.raises(UserError, match="daisy/1.jpg has become shorter"):
    picture_of_daisy.read()
  (photos / "train/daisy/1.jpg").unlink()
  with pytest.raises(UserError, match="daisy/1.jpg cannot be read: No such file"):
    picture_of_daisy.read()


def test_the_command_answers_wrong_flags_in_one_line():
  command = [sys.executable, "-m", "shufflenet_jax.data.prepare", "--name=a", "--train=b", "--validation=c", "--to=d"]
  for flag, message in (("--quality=80", "--quality needs --short_side"), ("--quality=0", "quality"), ("x", "'x'")):
    done = subprocess.run([*command, flag], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
