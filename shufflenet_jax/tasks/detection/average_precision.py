"""Average precision as COCO defines it (cocodataset.org, "Detection Evaluation"), by faster-coco-eval."""

import hashlib
import math

import faster_coco_eval
import numpy as np

# Our name -> faster-coco-eval's. AP is the mean over IoU thresholds from .50 to .95; the sizes are by area in the
# original picture: small below 32x32 pixels, large above 96x96.
_NAMES = {
  "ap": "AP_all",
  "ap50": "AP_50",
  "ap75": "AP_75",
  "ap_small": "AP_small",
  "ap_medium": "AP_medium",
  "ap_large": "AP_large",
}


def average_precision(rows: dict[str, np.ndarray]) -> dict[str, float]:
  """AP of all pictures of an evaluation.

  Crowds do not count as objects that have to be found, and detections inside a crowd do not count as wrong.

  Args:
    rows: of each of n pictures, with boxes (ymin, xmin, ymax, xmax) in pixels of the original picture:
      `boxes` float32 (n, m, 4), `label` int32 (n, m) with -1 for padding, `crowd` bool (n, m), `area` float32 (n, m);
      `detected_boxes` float32 (n, k, 4), `detected_label` int32 (n, k) with -1 for padding, `scores` float32 (n, k).

  Returns:
    The figures of `_NAMES`, fractions; NaN where there is no object of that size.
  """
  rows = _in_fixed_order(rows)
  pictures = [{"id": i} for i in range(len(rows["label"]))]
  annotations = [
    # Ids begin with 1, because the evaluation treats a match with the object of id 0 as no match.
    {"id": i, "image_id": int(picture), "category_id": int(rows["label"][picture, box])}
    | {"bbox": _xywh(rows["boxes"][picture, box]), "area": float(rows["area"][picture, box])}
    | {"iscrowd": int(rows["crowd"][picture, box])}
    for i, (picture, box) in enumerate(np.argwhere(rows["label"] >= 0), start=1)
  ]
  labels = np.union1d(rows["label"], rows["detected_label"])
  detections = [
    {"image_id": int(picture), "category_id": int(rows["detected_label"][picture, box])}
    | {"bbox": _xywh(rows["detected_boxes"][picture, box]), "score": float(rows["scores"][picture, box])}
    for picture, box in np.argwhere(rows["detected_label"] >= 0)
  ]
  truth = faster_coco_eval.COCO(
    {"images": pictures, "annotations": annotations, "categories": [{"id": int(i)} for i in labels if i >= 0]}
  )
  silent = {"print_function": lambda *_: None}
  evaluation = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(detections), iouType="bbox", **silent)
  evaluation.run()
  stats = evaluation.stats_as_dict
  return {name: float(stats[theirs]) if stats[theirs] >= 0 else math.nan for name, theirs in _NAMES.items()}


def _in_fixed_order(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The rows ordered by a hash of their content.

  Of detections with the same score, the evaluation ranks those of earlier pictures first. Rows come in an order that
  depends on the number of processes, on which AP must not depend. Neither must the order depend on how many objects a
  picture has, which would favour some detections.
  """

  def digest(i):
    return hashlib.sha256(b"".join(rows[name][i].tobytes() for name in sorted(rows))).digest()

  order = sorted(range(len(rows["label"])), key=digest)
  return {name: values[order] for name, values in rows.items()}


def _xywh(box: np.ndarray) -> list[float]:
  """(ymin, xmin, ymax, xmax) -> COCO's [x, y, width, height]."""
  ymin, xmin, ymax, xmax = box.tolist()
  return [xmin, ymin, xmax - xmin, ymax - ymin]
