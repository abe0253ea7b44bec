"""Boxes of COCO and Pascal VOC: every one that has a size, where it was, with its class; also after a stop."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.data.prepare.options import Options
from shufflenet_jax.errors import UserError
from tests.annotated import HEIGHT, WIDTH, opened, parsed, unpack_shared
from tests.pictures import picture, put
from tests.preparation import files, stop_at, with_
from tests.streams import open_tfds


def raw(options, split="train"):
  """File name -> the example, as TFDS reads it."""
  builder = tfds.core.read_only_builder.builder_from_files(options.name, data_dir=options.to)
  read = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}).as_numpy_iterator()
  return builder, {example["image/filename"].decode(): example for example in read}


def test_coco_becomes_a_dataset_like_tfds_own(coco, capsys):
  folder = Path(prepare(coco))
  builder, examples = raw(coco)
  expected = tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(),
      "image/filename": tfds.features.Text(),
      "image/id": np.int64,
      "objects": tfds.features.Sequence(
        {
          "area": np.int64,
          "bbox": tfds.features.BBoxFeature(),
          "id": np.int64,
          "is_crowd": np.bool_,
          "label": tfds.features.ClassLabel(names=["dog", "cat"]),
        }
      ),
    }
  )
  assert builder.info.features.to_json() == expected.to_json()
  assert builder.info.supervised_keys is None
  assert json.loads((folder / "categories.json").read_text()) == [
    {"label": 0, "id": 3, "name": "dog"},
    {"label": 1, "id": 7, "name": "cat"},
  ]
  assert sorted(examples) == ["0.jpg", "1.jpg", "2.jpg"]
  assert [examples[f"{i}.jpg"]["image/id"] for i in range(3)] == [100, 101, 102]
  for name, example in examples.items():
    assert example["image"] == Path(coco.train).parents[1].joinpath("train", name).read_bytes()
  objects = examples["0.jpg"]["objects"]
  np.testing.assert_allclose(objects["bbox"], [[5 / 20, 3 / 30, 15 / 20, 9 / 30], [0, 0, 1, 1]], rtol=1e-6)
  assert objects["label"].tolist() == [0, 1]
  assert objects["is_crowd"].tolist() == [False, True]
  assert objects["id"].tolist() == [0, 1]
  assert objects["area"].tolist() == [5, 300]
  np.testing.assert_allclose(examples["1.jpg"]["objects"]["bbox"], [[0.5, 0, 1, 0.5]])  # clipped on two sides
  assert examples["2.jpg"]["objects"]["bbox"].shape == (0, 4)
  printed = capsys.readouterr().out
  assert "\ntrain on it with: --config=configs/boxes.py --config.data.name=" in printed
  assert "--train: 3 boxes, 1 of them crowds; pictures without boxes: 1; boxes of no size, left out: 1; " in printed
  assert "; boxes that stick out, clipped to their picture: 1\n" in printed
  assert "train: 3 pictures, 3 boxes of 2 classes, 3 shards" in printed
  assert "--config.model.num_classes=2" in printed


def test_voc_counts_from_one_and_includes_the_last_pixel(voc):
  folder = Path(prepare(voc))
  builder, examples = raw(voc)
  assert builder.info.features["objects"].feature["label"].names == ["ant", "cat", "dog"]
  assert not (folder / "categories.json").exists()
  objects = examples["b.jpg"]["objects"]
  np.testing.assert_allclose(objects["bbox"], [[0, 0, 1, 1], [5 / 20, 3 / 30, 15 / 20, 9 / 30]], rtol=1e-6)
  assert objects["area"].tolist() == [600, 60]
  assert objects["is_crowd"].tolist() == [False, True]
  assert objects["label"].tolist() == [2, 0]
  assert examples["a.jpg"]["objects"]["label"].shape == (0,)  # its one box was a click
  assert (examples["b.jpg"]["image/id"], examples["a.jpg"]["image/id"]) == (0, 1)
  [(name, example)] = raw(voc, "validation")[1].items()
  assert name == "c.png"
  np.testing.assert_allclose(example["objects"]["bbox"], [[10 / 20, 10 / 30, 1, 20.5 / 30]], rtol=1e-6)


def test_pictures_elsewhere(coco, voc):
  for options, folder in (
    (coco, Path(coco.train).parents[1] / "train"),
    (voc, Path(voc.train).parents[2] / "JPEGImages"),
  ):
    expected = files(prepare(options))
    moved = folder.rename(folder.parent / "moved")
    options = with_(options, train_pictures=str(moved), to=f"{options.to}2")
    if options.name == voc.name:
      options = with_(options, validation_pictures=str(moved))
    assert files(prepare(options)) == expected


def test_coco_pictures_may_lie_beside_the_file(coco):
  expected = files(prepare(coco))
  root = Path(coco.train).parents[1]
  for name in ("train", "val"):
    (root / "annotations" / f"instances_{name}.json").rename(root / name / "_annotations.coco.json")
  beside = [f"{root / name}/_annotations.coco.json" for name in ("train", "val")]
  assert files(prepare(with_(coco, train=beside[0], validation=beside[1], to=f"{coco.to}2"))) == expected


def test_continues_after_a_stop_and_gives_the_same_bytes(coco, monkeypatch, capsys):
  expected = files(prepare(with_(coco, to=f"{coco.to}2")))
  stop_at(monkeypatch, 3, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    prepare(coco)
  monkeypatch.undo()
  with pytest.raises(UserError, match="begun with other pictures or flags: pictures: as they came then, short side 16"):
    prepare(with_(coco, short_side=16))
  capsys.readouterr()
  assert files(prepare(coco)) == expected
  assert "of 5 shards were already complete" in capsys.readouterr().out
  assert prepare(coco)
  assert "already complete and made from the same pictures: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
  "change",
  [("[3, 5, 6, 10]", "[3, 5, 6, 11]"), ('id": 7', 'id": 8'), ('"iscrowd": 1', '"iscrowd": 0'), ('"id": 0', '"id": 5')],
)
def test_other_annotations_are_another_dataset(coco, change):
  prepare(coco)
  for path in (Path(coco.train), Path(coco.validation)):
    path.write_text(path.read_text().replace(*change))
  with pytest.raises(UserError, match="begun with other pictures or flags: "):
    prepare(coco)


def test_boxes_travel_with_a_picture_that_shrinks(coco):
  root = Path(coco.train).parents[1]
  content = json.loads(Path(coco.train).read_text())
  content["images"][0] |= {"width": 120, "height": 90}
  Path(coco.train).write_text(json.dumps(content))
  put(root / "train/0.jpg", picture(90, 120))
  prepare(with_(coco, short_side=45))
  encoded, targets = parsed(opened(coco))[100]
  assert Image.open(io.BytesIO(encoded)).size == (60, 45)
  np.testing.assert_allclose(targets["boxes"][0], [5 / 90, 3 / 120, 15 / 90, 9 / 120], rtol=1e-6)
  assert targets["area"][0] == 5


def test_upright_boxes_need_the_flag(coco):
  """The box of an upright picture, where the file holds it turned."""
  exif = Image.Exif()
  exif[0x0112] = 6
  put(Path(coco.train).parents[1] / "train/0.jpg", picture(WIDTH, HEIGHT, exif=exif))
  with pytest.raises(UserError, match="has 0.jpg with 30x20 pixels, its file holds 20x30; .*--upright is for boxes of"):
    prepare(coco)
  prepare(with_(coco, short_side=16, upright=True))
  encoded, targets = parsed(opened(coco))[100]
  assert Image.open(io.BytesIO(encoded)).size == (24, 16)
  np.testing.assert_allclose(targets["boxes"][0], [5 / 20, 3 / 30, 15 / 20, 9 / 30], rtol=1e-6)


def test_a_picture_that_cannot_be_decoded_can_be_skipped(coco):
  put(Path(coco.train).parents[1] / "train/1.jpg", b"no picture")
  with pytest.raises(UserError, match="1 pictures cannot be decoded: 1.jpg: it is none of JPEG.*--skip_bad=1"):
    prepare(coco)
  prepare(with_(coco, skip_bad=1))
  assert sorted(parsed(opened(coco))) == [100, 102]


def test_area_is_the_boxs_where_coco_has_none(coco):
  content = json.loads(Path(coco.train).read_text())
  for annotation in content["annotations"]:
    del annotation["area"], annotation["iscrowd"]
  Path(coco.train).write_text(json.dumps(content))
  prepare(coco)
  targets = {id: targets for id, (_, targets) in parsed(opened(coco)).items()}
  assert targets[100]["area"][:3].tolist() == [60, 600, 0]
  assert targets[101]["area"][:2].tolist() == [150, 0]
  assert not targets[100]["crowd"].any()


def test_records_have_their_fields_in_order(coco):
  for path in Path(prepare(coco)).glob("*.tfrecord*"):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      assert record == tf.train.Example.FromString(record).SerializeToString(deterministic=True)


def test_it_is_no_image_classification(coco):
  prepare(coco)
  with pytest.raises(UserError, match="'pets' is not image classification: its features are image, .*objects"):
    open_tfds(coco.name, coco.to, "train", 2)


def test_real_coco(tmp_path):
  root = unpack_shared("coco_tiny", tmp_path) / "coco_tiny"
  files_of_split = {split: root / f"annotations/instances_{split}2017.json" for split in ("train", "val")}
  options = Options("coco_tiny", *map(str, files_of_split.values()), str(tmp_path / "to"))
  prepare(options)
  num_crowds = 0
  for split, path in files_of_split.items():
    content = json.loads(path.read_text())
    ids = sorted(category["id"] for category in content["categories"])
    dataset = opened(options, {"val": "validation"}.get(split, split), 80)
    assert dataset.class_names[ids.index(90)] == "toothbrush"
    examples = parsed(dataset)
    for image in content["images"]:
      encoded, targets = examples[image["id"]]
      assert encoded == (root / f"{split}2017" / image["file_name"]).read_bytes()
      expected = [annotation for annotation in content["annotations"] if annotation["image_id"] == image["id"]]
      count = len(expected)
      assert targets["num_boxes"] == count
      x, y, w, h = np.reshape([annotation["bbox"] for annotation in expected], (-1, 4)).T
      scale = np.array([image["height"], image["width"]] * 2)
      np.testing.assert_allclose(targets["boxes"][:count] * scale, np.stack([y, x, y + h, x + w], 1), atol=1e-3)
      assert targets["label"][:count].tolist() == [ids.index(annotation["category_id"]) for annotation in expected]
      assert targets["crowd"][:count].tolist() == [annotation["iscrowd"] == 1 for annotation in expected]
      assert targets["area"][:count].tolist() == [int(annotation["area"]) for annotation in expected]
      assert (targets["label"][count:] == -1).all()
      num_crowds += targets["crowd"].sum()
  assert num_crowds == 17


def test_real_voc(tmp_path, capsys):
  lists = unpack_shared("bccd", tmp_path) / "bccd/BCCD/ImageSets/Main"
  options = Options("cells", f"{lists}/trainval.txt", f"{lists}/test.txt", str(tmp_path / "to"))
  prepare(options)
  assert "--train: 3,941 boxes, 0 of them difficult; boxes of no size, left out: 2\n" in capsys.readouterr().out
  split = opened(options, "train")
  assert split.class_names == ("Platelets", "RBC", "WBC")
  examples = {split: parsed(opened(options, split)) for split in ("train", "validation")}
  counts = {split: sum(int(targets["num_boxes"]) for _, targets in of.values()) for split, of in examples.items()}
  assert counts == {"train": 3941, "validation": 945}
  assert {split: len(of) for split, of in examples.items()} == {"train": 292, "validation": 72}
  names = (lists / "trainval.txt").read_text().split()
  _, targets = examples["train"][names.index("BloodImage_00338")]
  assert targets["num_boxes"] == 13
  np.testing.assert_allclose(targets["boxes"][0], [80 / 480, 452 / 640, 182 / 480, 555 / 640], rtol=1e-6)
  assert targets["area"][0] == 102 * 103
  assert not np.isnan(targets["boxes"]).any()
