"""ImageNet is known by its form: labels from its own lists, counts, and what is not of it."""

import os
import tarfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from shufflenet_jax.data.prepare import imagenet, inputs
from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.errors import UserError
from tests.pictures import picture, put
from tests.preparation import VALIDATION, WNIDS, examples, files, tar, with_

ROOT = Path(__file__).parents[3]


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
    with pytest.raises(UserError, match=f"holds {count:,} pictures, ImageNet's train split 1,281,167; get"):
      imagenet.check("train", "DIR", train[:count], False)
  names = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 50_001)]
  validation = [(name, imagenet.validation_label(name)) for name in names]
  imagenet.check("validation", "DIR", validation, False)
  part = validation[:2] + validation[4:]
  with pytest.raises(UserError, match="holds 49,998 of .* 2 are missing, ILSVRC2012_val_00000003.JPEG first; get"):
    imagenet.check("validation", "DIR", part, False)
  imagenet.check("validation", "DIR", part, True)
  with pytest.raises(UserError, match="holds 50,001 pictures, ImageNet's validation split 50,000"):
    imagenet.check("validation", "DIR", [*validation, ("more.JPEG", "n01440764")], False)


def test_foreign_and_misplaced_pictures_are_no_imagenet(part_of_imagenet, photos, tmp_path):
  with pytest.raises(UserError, match="holds 2 classes that ImageNet does not have, daisy first"):
    prepare(with_(part_of_imagenet, train=str(photos / "train")))
  put(tmp_path / "val/n01440764/ILSVRC2012_val_00000001.JPEG", picture())
  with pytest.raises(UserError, match="00001.JPEG is in class folder n01440764; ImageNet's list has n01751748"):
    prepare(with_(part_of_imagenet, validation=str(tmp_path / "val")))
  tar(tmp_path / "beyond.tar", {"ILSVRC2012_val_00050001.JPEG": picture()})
  with pytest.raises(UserError, match="00050001.JPEG is not one of ImageNet's validation pictures"):
    prepare(with_(part_of_imagenet, validation=str(tmp_path / "beyond.tar")))


def test_the_official_list_agrees_with_imagenettes_folders():
  path = ROOT.parent / "shared" / "data" / "imagenette_val.tar"
  if not path.exists():
    pytest.skip("needs Imagenette beside the project, ../shared/data/imagenette_val.tar")
  opened = inputs.open_source("--validation", str(path), lambda count: None)
  assert len(opened.pictures) == 3925
  for p in opened.pictures:
    if imagenet.VALIDATION_NAME.fullmatch(os.path.basename(p.name)):
      assert imagenet.validation_label(os.path.basename(p.name)) == p.label
