"""What `data.prepare` will not do, or cannot: said in one line, and nothing whole is lost."""

import errno
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tensorflow as tf

from shufflenet_jax.data.prepare import inputs
from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.errors import RunFailed, UserError
from tests.pictures import picture, put
from tests.preparation import examples, files, stop_at, tar, tar_of, with_

ROOT = Path(__file__).parents[3]


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


def spoil(path, change):
  return lambda photos: change(photos / path)


@pytest.mark.parametrize(
  ("change", "flags", "message"),
  [
    (None, {"name": "Flowers"}, "--name=Flowers cannot name a dataset"),
    (None, {"name": "flowers-2"}, "cannot name a dataset"),
    (None, {"name": "mnist"}, "--name=mnist is the name of a known dataset"),
    (None, {"name": "digits"}, "--name=digits is the name of a known dataset"),
    (None, {"name": "folder"}, "--name=folder is the name of a known dataset"),
    (None, {"quality": 80}, "--quality needs --short_side"),
    (None, {"upright": True}, "--upright needs --short_side"),
    (None, {"to": "s3://bucket/tfds"}, "--to=s3://bucket/tfds: s3: is not supported; give a local path or gs://BUCKET"),
    (None, {"train": "absent"}, "--train=absent does not exist"),
    (
      spoil("val/rose", lambda p: p.rename(p.parent / "lily")),
      {},
      "differ; only in training: rose; only in validation: lily",
    ),
    (spoil("train/lily", lambda p: p.mkdir()), {}, "1 class folders hold no pictures .*, lily first"),
    (spoil("train/rose", lambda p: shutil.rmtree(p)), {}, "differ; only in validation: rose$"),
    (spoil("val/lily", lambda p: p.symlink_to("nowhere")), {}, "lily is a broken link; remove it"),
    (spoil("train/Annotations", lambda p: p.mkdir()), {}, "train holds Annotations, .*; for boxes give COCO.s .json"),
    (spoil("val", lambda p: [shutil.rmtree(q) for q in p.iterdir()]), {}, "val holds no pictures .* in class folders"),
  ],
)
def test_what_will_not_do_in_one_line_before_anything_is_written(options, photos, change, flags, message):
  if change:
    change(photos)
  with pytest.raises(UserError, match=message) as raised:
    prepare(with_(options, **flags))
  assert "\n" not in str(raised.value)
  assert not os.path.exists(options.to)


def test_one_class_is_a_folder_too_high(options, photos):
  with pytest.raises(UserError, match="holds one class, train; give the folder that holds the class folders"):
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
    with pytest.raises(UserError, match=f"{path.name} is (truncated or damaged|not a tar, or it is compressed)"):
      inputs.open_source(flag, str(path), id)
  path.write_bytes(whole[: end + 512])
  assert len(inputs.open_source(flag, str(path), id).pictures) == (9 if flag == "train" else 4)


def test_a_cut_tar_within_a_tar_is_found(part_of_imagenet, tmp_path):
  with tarfile.open(part_of_imagenet.train) as intact:
    inner = {m.name: intact.extractfile(m).read() for m in intact}
  inner["n01443537.tar"] = inner["n01443537.tar"][:1536]
  tar(Path(part_of_imagenet.train), inner)
  with pytest.raises(UserError, match="train.tar is truncated or damaged within bytes"):
    inputs.open_source("--train", part_of_imagenet.train, id)


def test_a_damaged_header_is_no_end(options, photos, tmp_path):
  path = tmp_path / "train.tar"
  tar(path, tar_of(photos / "train", ""))
  whole = bytearray(path.read_bytes())
  with tarfile.open(path) as intact:
    at = intact.getmembers()[10].offset
  whole[at : at + 100] = b"x" * 100
  path.write_bytes(whole)
  with pytest.raises(UserError, match="train.tar is truncated or damaged"):
    prepare(with_(options, train=str(path)))


def test_a_compressed_tar_is_named_so(options, tmp_path):
  with tarfile.open(tmp_path / "train.tgz", "w:gz"):
    pass
  with pytest.raises(UserError, match="train.tgz is not a tar, or it is compressed"):
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
  with pytest.raises(
    UserError, match="cannot be written: No space left on device; complete shards.*the same command continues"
  ):
    prepare(options)
  work = Path(options.to, "flowers/1.0.0.incomplete")
  assert not list(work.glob("*.partial"))
  monkeypatch.undo()
  assert len(files(prepare(options))) == len(expected) - 8
  assert len(examples(options)) == 20


def test_too_little_room_is_said_before_writing(options, monkeypatch):
  monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
  with pytest.raises(UserError, match="has 0.0 GB of free space, 0.0 GB are needed"):
    prepare(options)


def test_a_place_that_cannot_be_written(options, tmp_path):
  (tmp_path / "to").write_text("a file")
  with pytest.raises(UserError, match="--to=.* cannot be written: (Not a directory|File exists)"):
    prepare(options)


def test_a_source_that_goes_away_is_named(options, monkeypatch, photos):
  stop_at(monkeypatch, 3, OSError(errno.EIO, "Input/output error"))
  with pytest.raises(RunFailed, match="Input/output error"):
    prepare(options)
  monkeypatch.undo()
  (picture_of_daisy,) = [
    p for p in inputs.open_source("--train", options.train, id).pictures if p.name == "daisy/1.jpg"
  ]
  put(photos / "train/daisy/1.jpg", b"short")
  with pytest.raises(UserError, match="daisy/1.jpg has become shorter"):
    picture_of_daisy.read()
  (photos / "train/daisy/1.jpg").unlink()
  with pytest.raises(UserError, match="daisy/1.jpg cannot be read: No such file"):
    picture_of_daisy.read()


def test_the_command_answers_wrong_flags_in_one_line():
  command = [
    sys.executable,
    "-m",
    "shufflenet_jax.data.prepare",
    "--name=a",
    "--train=b",
    "--validation=c",
    "--to=d",
  ]
  for flag, message in (("--quality=80", "--quality needs --short_side"), ("--quality=0", "quality"), ("x", "'x'")):
    done = subprocess.run([*command, flag], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
