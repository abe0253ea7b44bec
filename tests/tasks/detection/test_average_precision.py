"""AP against pycocotools, COCO's own evaluation; and the cases in which evaluations of detectors go wrong."""

import contextlib
import io
import json
import math
import tarfile

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from shufflenet_jax.tasks.detection.average_precision import average_precision
from tests.authors import SHARED

M = 20  # boxes and detections of a picture, padded


def padded(pictures):
  """[(boxes, labels, crowds, areas, detected boxes, labels, scores), ...], lists of any length -> rows."""
  names = ("boxes", "label", "crowd", "area", "detected_boxes", "detected_label", "scores")
  fill = {"label": -1, "detected_label": -1}
  rows = {name: [] for name in names}
  for picture in pictures:
    for name, values in zip(names, picture):
      shape = (M, 4) if name.endswith("boxes") else (M,)
      kind = np.int32 if name.endswith("label") else bool if name == "crowd" else np.float32
      row = np.full(shape, fill.get(name, 0), kind)
      row[: len(values)] = np.reshape(values, (len(values), *shape[1:]))
      rows[name].append(row)
  return {name: np.stack(values) for name, values in rows.items()}


def random_pictures(seed):
  """Objects of all of COCO's sizes, some of them crowds, and detections near most of them."""
  random = np.random.default_rng(seed)
  for _ in range(30):
    n = random.integers(0, 9)
    corner, side = random.uniform(0, 300, (n, 2)), random.uniform(4, 200, (n, 2))
    boxes, labels, crowds = np.concatenate([corner, corner + side], 1), random.integers(0, 4, n), random.random(n) < 0.1
    found = random.random(n) < 0.8
    detected = np.concatenate([boxes[found] + random.normal(0, 6, (found.sum(), 4)), random.uniform(0, 90, (3, 4))])
    detected[:, 2:] = np.maximum(detected[:, :2] + 1, detected[:, 2:])
    detected_labels = np.concatenate([labels[found], random.integers(0, 4, 3)])
    area = 0.7 * side.prod(-1)  # as outlines have less area than boxes
    yield boxes, labels, crowds, area, detected, detected_labels, random.random(len(detected))


def by_pycocotools(rows):
  """AP, AP50, AP75, and AP of small, medium and large objects."""

  def listed(box):
    ymin, xmin, ymax, xmax = map(float, box)
    return [xmin, ymin, xmax - xmin, ymax - ymin]

  annotations, detections = [], []
  for picture in range(len(rows["label"])):
    for i in np.flatnonzero(rows["label"][picture] >= 0):
      annotation = {"id": len(annotations) + 1, "image_id": picture, "bbox": listed(rows["boxes"][picture, i])}
      annotation |= {"category_id": int(rows["label"][picture, i]), "area": float(rows["area"][picture, i])}
      annotations.append(annotation | {"iscrowd": int(rows["crowd"][picture, i])})
    for i in np.flatnonzero(rows["detected_label"][picture] >= 0):
      detection = {"image_id": picture, "bbox": listed(rows["detected_boxes"][picture, i])}
      detection |= {"category_id": int(rows["detected_label"][picture, i])}
      detections.append(detection | {"score": float(rows["scores"][picture, i])})
  with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO()
    truth.dataset = {
      "images": [{"id": i} for i in range(len(rows["label"]))],
      "annotations": annotations,
      "categories": [{"id": int(i)} for i in np.unique(rows["label"]) if i >= 0],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  return evaluation.stats[:6]


def assert_as_pycocotools(rows):
  ours = average_precision(rows)
  assert list(ours) == ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
  np.testing.assert_allclose(list(ours.values()), by_pycocotools(rows), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_random_detections(seed):
  assert_as_pycocotools(padded(random_pictures(seed)))


def test_the_order_of_the_rows_changes_nothing():
  """It depends on the number of processes; with scores that are alike, the evaluation ranks earlier pictures first."""
  rows = padded(random_pictures(0))
  rows["scores"] = np.round(rows["scores"], 1)
  order = np.random.default_rng(1).permutation(len(rows["label"]))
  assert average_precision({name: values[order] for name, values in rows.items()}) == average_precision(rows)


def test_real_objects():
  """COCO's own annotations of 80 pictures, with their crowds and areas, and detections beside them."""
  path = SHARED / "data" / "coco_tiny.tar"
  if not path.exists():
    pytest.skip("needs COCO's pictures beside the project, ../shared/data/coco_tiny.tar")
  with tarfile.open(path) as tar:
    name = next(name for name in tar.getnames() if name.endswith(".json") and "val" in name)
    coco = json.load(tar.extractfile(name))
  random = np.random.default_rng(0)
  pictures = []
  for image in coco["images"]:
    own = [a for a in coco["annotations"] if a["image_id"] == image["id"]][:M]
    xywh = np.reshape([a["bbox"] for a in own], (-1, 4))
    boxes = np.stack([xywh[:, 1], xywh[:, 0], xywh[:, 1] + xywh[:, 3], xywh[:, 0] + xywh[:, 2]], 1)
    labels = [a["category_id"] for a in own]
    crowds, areas = [a["iscrowd"] for a in own], [a["area"] for a in own]
    detected = boxes + random.normal(0, 4, boxes.shape)
    detected[:, 2:] = np.maximum(detected[:, :2] + 1, detected[:, 2:])
    pictures.append((boxes, labels, crowds, areas, detected, labels, random.random(len(own))))
  assert sum(sum(picture[2]) for picture in pictures) >= 1
  assert_as_pycocotools(padded(pictures))


BOX = [10, 20, 110, 220]


def test_perfect_boxes_have_an_ap_of_one_and_the_first_object_counts():
  """An annotation with the id 0 would count as not found."""
  rows = padded([([BOX], [0], [False], [20_000], [BOX], [0], [0.9])])
  found = average_precision(rows)
  assert found["ap"] == found["ap_large"] == 1
  assert math.isnan(found["ap_small"])


def test_no_detections_at_all_have_an_ap_of_zero():
  rows = padded([([BOX], [0], [False], [20_000], [], [], []), ([], [], [], [], [], [], [])])
  assert average_precision(rows)["ap"] == average_precision(rows)["ap50"] == 0


def test_detections_in_a_crowd_are_neither_right_nor_wrong():
  inside = [30, 40, 60, 80]
  objects = ([BOX, [300, 300, 400, 400]], [0, 0], [True, False], [20_000, 10_000])
  rows = padded([(*objects, [inside, [300, 300, 400, 400]], [0, 0], [0.9, 0.5])])
  assert average_precision(rows)["ap"] == 1
  rows["crowd"][:] = False
  assert average_precision(rows)["ap"] < 0.6


def test_labels_off_by_one_are_wrong():
  """80 classes numbered from 0 are not the 90 category ids of COCO numbered from 1."""
  rows = padded([([BOX], [0], [False], [20_000], [BOX], [1], [0.9])])
  assert average_precision(rows)["ap"] == 0
