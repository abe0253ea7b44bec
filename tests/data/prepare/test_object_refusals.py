"""Annotations that contradict themselves or their pictures: one line that names what is wrong, and nothing written."""

import json
import os
from pathlib import Path

import pytest

from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.errors import UserError
from tests.annotated import annotation, voc_object, voc_xml
from tests.pictures import picture, put
from tests.preparation import with_


def refused(options, message):
  with pytest.raises(UserError, match=message) as raised:
    prepare(options)
  assert "\n" not in str(raised.value)
  assert not os.path.exists(options.to)


def images(i, **values):
  return lambda content: content["images"][i].update(values)


def annotations(i, **values):
  return lambda content: content["annotations"][i].update(values)


def categories(i, **values):
  return lambda content: content["categories"][i].update(values)


def more_boxes(content):
  content["annotations"] += [annotation(1000 + i, 102, [i % 9, 1, 5, 5]) for i in range(101)]


def only_crowds(content):
  for box in content["annotations"]:
    box["iscrowd"] = 1


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c["categories"][1].pop("name"), "instances_train.json: category 3 has no name; give it one"),
    (categories(1, name=""), "category 3 has no name"),
    (categories(1, name="dog\n"), r"category 3 has name 'dog\\n', which must be text"),
    (categories(1, name=" dog"), "category ' dog' has a name that TFDS cannot store; rename it"),
    (categories(1, id=7), "has two categories with the id 7 or the name 'dog'"),
    (categories(1, name="cat"), "has two categories with the id 3 or the name 'cat'"),
    (categories(1, id="3"), "categories has id '3', which must be a whole number"),
    (categories(1, id=4), "annotation 0 has category_id 3, which is not one of its categories"),
    (annotations(3, image_id=5), "annotation 3 has image_id 5, which is not one of its images"),
    (annotations(3, image_id=None), "annotation 3 has image_id None, which must be a whole number"),
    (annotations(3, bbox=[1, 2, 3]), r"annotation 3 has bbox \[1, 2, 3\], not \[x, y, width, height\] in pixels"),
    (annotations(3, bbox=[1, 2, 3, float("nan")]), r"annotation 3 has bbox \[1, 2, 3, nan\], not"),
    (annotations(3, bbox=[10**400, 1, 1, 1]), "annotation 3 has bbox .*, whose numbers are too large"),
    (annotations(3, iscrowd="0"), "annotation 3 has iscrowd '0', which must be 0 or 1"),
    (annotations(3, area=-1), "annotation 3 has area -1, not a number of pixels"),
    (annotations(3, bbox=[30, 2, 3, 4]), "the box of 'cat' in 1.jpg, at x 30 to 33 and y 2 to 6, lies .* 30x20"),
    (annotations(3, bbox=[1, -9, 3, 9]), "the box of 'cat' in 1.jpg, at x 1 to 4 and y -9 to 0, lies outside"),
    (images(1, id=100), "has two images with the id 100; give each its own"),
    (images(1, id=1.5), "images has id 1.5, which must be a whole number"),
    (images(1, file_name="0.jpg"), "has the picture 0.jpg 2 times; merge its annotations"),
    (images(1, file_name=""), "image 101 has file_name '', which must be text"),
    (images(1, file_name="\ud800.jpg"), r"image 101 has file_name '\\ud800.jpg', which must be text on one line"),
    (images(1, width=31), "has 1.jpg with 31x20 pixels, its file holds 30x20; correct the annotation$"),
    (images(1, file_name="gone.jpg"), "has 3 pictures, 1 of them are not in .*/train, gone.jpg first; .*_pictures=DIR"),
    (more_boxes, "has 101 boxes in 2.jpg, at most 100 are supported"),
    (lambda c: c["images"].clear() or c["annotations"].clear(), "has no pictures$"),
    (lambda c: c["annotations"].clear(), "instances_train.json has no boxes; a detector cannot be trained"),
    (only_crowds, "instances_train.json has no boxes that are not crowds; a detector cannot be trained"),
    (lambda c: c.pop("categories"), "is not in COCO's format: it has no list of objects 'categories'; give one like"),
    (lambda c: c.update(annotations={}), "is not in COCO's format: it has no list of objects 'annotations'"),
    (
      categories(1, name="fox"),
      r"the categories of --train and --validation differ; only in training: fox \(id 3\); .* validation: dog \(id 3\)",
    ),
  ],
)
def test_coco(coco, change, message):
  content = json.loads(Path(coco.train).read_text())
  change(content)
  Path(coco.train).write_text(json.dumps(content))
  refused(coco, message)


def test_exactly_100_boxes_are_kept(coco):
  content = json.loads(Path(coco.train).read_text())
  more_boxes(content)
  content["annotations"][-1]["bbox"][2] = 0  # has no size, so it does not count
  Path(coco.train).write_text(json.dumps(content))
  prepare(coco)


@pytest.mark.parametrize("content", [b"", b'{"images": [', b"\xff\xfe\x00", b"[" * 100_000])
def test_json_that_is_cut_short(coco, content):
  Path(coco.train).write_bytes(content)
  refused(coco, "--train=.*instances_train.json is cut short or not JSON .*; get an intact copy")


@pytest.mark.parametrize("content", [b"[]", b"1", b'{"images": [1]}'])
def test_json_that_is_not_cocos(coco, content):
  Path(coco.train).write_bytes(content)
  refused(coco, "is not in COCO's format: it has no list of objects 'images'")


def boxes(*objects, **more):
  return voc_xml("b.jpg", objects, **more)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (boxes(voc_object("", 1, 1, 2, 2)), "b.xml: object 1 of 1 has no name; give it one"),
    (boxes(voc_object("dog", 1, "", 2, 2)), "b.xml: object 1 of 1 has <bndbox/ymin> '', which must be a number"),
    (boxes(voc_object("dog", 1, 1, "nan", 2)), "has <bndbox/xmax> 'nan', which must be a number"),
    (boxes("<object><name>dog</name></object>"), "has <bndbox/xmin> '', which must be a number"),
    (boxes(voc_object("dog", 31, 1, 40, 2)), "the box of 'dog' in b.jpg, at x 30 to 40 and y 0 to 2, lies outside"),
    (boxes(*[voc_object("dog", 1, 1, 2 + i % 9, 2) for i in range(101)]), "has 101 boxes in b.jpg, at most 100"),
    (boxes(voc_object("dog", 1, 1, 2, 2), size=(20, 30)), "has b.jpg with 20x30 pixels, its file holds 30x20"),
    (boxes(voc_object("dog", 1, 1, 2, 2))[:-20], "b.xml is cut short or not XML .*; get an intact copy"),
    ("", "b.xml is cut short or not XML"),
    ("<html/>", "b.xml is not a Pascal VOC annotation: it begins with <html>"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "b.xml defines XML entities, which no annotation needs; remove"),
    (boxes(), "train.txt has no boxes; a detector"),
    (boxes(voc_object("dog", 1, 1, 2, 2, "<difficult>1</difficult>")), "train.txt has no boxes that are not difficult"),
  ],
)
def test_voc(voc, content, message):
  put(Path(voc.train).parents[2] / "Annotations/b.xml", content.encode())
  refused(voc, message)


def test_entities_are_found_in_every_encoding(voc):
  content = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
  put(Path(voc.train).parents[2] / "Annotations/b.xml", content.encode("utf-16"))
  refused(voc, "b.xml defines XML entities")


def test_lists_that_name_what_is_absent(voc):
  root = Path(voc.train).parents[2]
  put(Path(voc.train), b"b\nz\n")
  refused(voc, "train.txt names a picture without annotations: .*z.xml does not exist")
  put(Path(voc.train), b"b\nb\n")
  refused(voc, "train.txt names 'b' twice; remove one of the lines")
  put(Path(voc.train), b"\n")
  refused(voc, "train.txt has no pictures")
  put(Path(voc.train), b"\xff")
  refused(voc, "train.txt is not a text file")
  put(Path(voc.train), b"b\na\n")
  (root / "JPEGImages/a.jpg").unlink()
  refused(voc, "has 2 pictures, 1 of them are not in .*JPEGImages, a.jpg first; .* --train_pictures=DIR")
  (root / "JPEGImages").rename(root / "Pictures")
  refused(voc, "there is no folder .*JPEGImages; name it with --train_pictures=DIR")
  (root / "Annotations").rename(root / "Other")
  refused(voc, "there is no folder .*Annotations; the list must be DIR/ImageSets/Main/NAME.txt")


def test_forms_and_flags(coco, voc, options):
  refused(with_(coco, validation=voc.validation), "is taken for COCO, .*val.txt for Pascal VOC; give both in the same")
  refused(with_(options, validation=voc.validation), "is taken for pictures in class folders, .* for Pascal VOC; give")
  refused(with_(options, train_pictures="x"), "--train_pictures needs annotations, COCO's .json or Pascal VOC's .txt")
  refused(with_(coco, name="imagenet2012"), "--name=imagenet2012 names pictures with classes, not with boxes")
  refused(with_(coco, train="absent.json"), "--train=absent.json does not exist; give COCO's annotations")
  refused(
    with_(coco, validation_pictures="absent"), "there is no folder absent; name it with --validation_pictures=DIR"
  )


def test_a_folder_in_place_of_a_picture(coco):
  path = Path(coco.train).parents[1] / "train/1.jpg"
  path.unlink()
  put(path / "inner.jpg", picture())
  refused(coco, "1 of them are not in .*/train, 1.jpg first")
