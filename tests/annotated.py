"""Writes pictures with boxes, annotated as COCO and Pascal VOC are, for tests of `data.prepare`; and reads datasets."""

import json
import tarfile

import ml_collections
import numpy as np
import pytest

from shufflenet_jax.data.prepare.options import Options
from shufflenet_jax.data.sources import objects
from tests.commands import ROOT
from tests.pictures import picture, put

WIDTH, HEIGHT = 30, 20  # of all pictures
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]  # not in the order of ids


def annotation(id, image_id, bbox, category_id=3, **more):
  outline = {"area": 5.75, "iscrowd": 0, "segmentation": [[0, 0, 1, 1]]}
  return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox} | outline | more


def coco_json(num_pictures, annotations, first_id=100):
  """The content of an annotation file; pictures are called 0.jpg, 1.jpg and so on."""
  images = [
    {"id": first_id + i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(num_pictures)
  ]
  return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write_coco(root, split, content):
  for image in content["images"]:
    put(root / split / image["file_name"], picture(HEIGHT, WIDTH))
  path = root / f"annotations/instances_{split}.json"
  put(path, json.dumps(content).encode())
  return str(path)


@pytest.fixture
def coco(tmp_path):
  """3 + 2 pictures: a crowd, a box of no size, one that sticks out, and a picture without boxes."""
  root = tmp_path / "coco"
  train = coco_json(
    3,
    [
      annotation(0, 100, [3, 5, 6, 10]),
      annotation(1, 100, [0, 0, 30, 20], category_id=7, iscrowd=1, area=300),
      annotation(2, 100, [4, 4, 0, 3]),
      annotation(3, 101, [-3, 10, 18, 14.5], category_id=7),
    ],
  )
  validation = coco_json(2, [annotation(9, 1, [0, 0, 15, 10])], first_id=0)
  for split, content in (("train", train), ("val", validation)):
    write_coco(root, split, content)
  folder = root / "annotations"
  return Options("pets", f"{folder}/instances_train.json", f"{folder}/instances_val.json", f"{tmp_path}/to")


def voc_object(name, xmin, ymin, xmax, ymax, more=""):
  corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
  return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def voc_xml(file_name, objects, size=(WIDTH, HEIGHT)):
  width, height = size
  size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
  return f"<annotation><filename>{file_name}</filename>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path):
  """2 + 1 pictures: one that its XML calls otherwise, a difficult object, a click, and no size in one XML file."""
  root = tmp_path / "voc"
  difficult = "<difficult>1</difficult>"
  files = {
    "b": voc_xml("b.jpg", [voc_object("dog", 1, 1, 30, 20), voc_object("ant", 4, 6, 9, 15, difficult)]),
    "a": voc_xml("other.png", [voc_object("dog", 5, 5, 5, 5)], size=(0, 0)),
    "c": voc_xml("c.png", [voc_object("cat", 11, 11, 20.5, 20)]),
  }
  for name, content in files.items():
    put(root / f"Annotations/{name}.xml", content.encode())
  for name, kind in (("a.jpg", "JPEG"), ("b.jpg", "JPEG"), ("c.png", "PNG")):
    put(root / "JPEGImages" / name, picture(HEIGHT, WIDTH, kind))
  lists = root / "ImageSets/Main"
  put(lists / "train.txt", b"b\n\na\n")
  put(lists / "val.txt", b"c\n")
  return Options("beasts", f"{lists}/train.txt", f"{lists}/val.txt", f"{tmp_path}/to")


def opened(options, split="train", num_classes=3, class_names=()):
  data = ml_collections.ConfigDict({"name": options.name, "data_dir": options.to})
  return objects.open_objects(data, split, num_classes, class_names)


def parsed(split) -> dict[int, tuple[bytes, dict[str, np.ndarray]]]:
  """Image id -> (encoded picture, targets), as a stream would parse them, within a graph."""
  examples = split.read_all().map(lambda i, record: split.parse(record)).as_numpy_iterator()
  result = {int(targets["image_id"]): (encoded, targets) for encoded, targets in examples}
  assert len(result) == split.num_examples
  return result


def unpack_shared(name, tmp_path):
  """The folder into which a tar of ../shared/data was unpacked; skips the test if the tar is not here."""
  path = ROOT.parent / "shared" / "data" / f"{name}.tar"
  if not path.exists():
    pytest.skip(f"{path} is not here: real pictures with boxes")
  with tarfile.open(path) as tar:
    tar.extractall(tmp_path, filter="data")
  return tmp_path
