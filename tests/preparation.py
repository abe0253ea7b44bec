"""Folders and tars of pictures, and options, for tests of `data.prepare`; and the examples of what it made."""

import dataclasses
import io
import tarfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from shufflenet_jax.data.prepare import inputs
from shufflenet_jax.data.prepare.options import Options
from tests.pictures import picture, put
from tests.streams import open_tfds


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


def examples(options, split="train", num_classes=2):
  """File name -> (encoded picture, class), as training reads them; checks that each comes once."""
  opened = open_tfds(options.name, options.to, split, num_classes)
  builder = tfds.core.read_only_builder.builder_from_files(options.name, data_dir=options.to)
  seen = {}
  for _, record in opened.read_all():
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


def stop_at(monkeypatch, count, error):
  """The picture read after `count` others raises."""
  left, read = iter(range(count)), inputs.Picture.read

  def read_or_raise(self):
    if next(left, None) is None:
      raise error
    return read(self)

  monkeypatch.setattr(inputs.Picture, "read", read_or_raise)
