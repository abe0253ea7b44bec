"""Object detection by Faster R-CNN (section 4.4 of the paper): boxes, their classes and scores; COCO's AP."""

import dataclasses
import typing
from typing import ClassVar

import jax
import jax.numpy as jnp

from shufflenet_jax.counting import detector
from shufflenet_jax.data.max_boxes import MAX_BOXES
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build as networks
from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.tasks.detection import detections, objective
from shufflenet_jax.tasks.detection.settings import Settings
from shufflenet_jax.tasks.forward import normalize
from shufflenet_jax.tasks.task import Task, stage_sides

SHOWN_SCORE = 0.3  # the least score of a box that is printed in a table or drawn


class Detected(typing.NamedTuple):
  """An object that was found.

  Attributes:
    score: from 0 to 1.
    name: of its class.
    box: (ymin, xmin, ymax, xmax) in pixels of the picture.
  """

  score: float
  name: str
  box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Detection(Task):
  """Batches have pictures on a canvas, and the boxes in them: see `data/stream/objects.py`. See `Task` for the methods.

  Attributes:
    settings: the numbers of training and inference.
    updates_statistics: whether batch norm uses each batch's statistics in training and updates the running ones. If
      not, it keeps those of the classifier from which a detector usually starts: a device has room for too few pictures
      to estimate them well.
  """

  settings: Settings = dataclasses.field(default_factory=Settings)
  updates_statistics: bool = False

  examples: ClassVar = "objects"
  targets: ClassVar = {
    "boxes": jax.ShapeDtypeStruct((MAX_BOXES, 4), jnp.float32),
    "label": jax.ShapeDtypeStruct((MAX_BOXES,), jnp.int32),
    "crowd": jax.ShapeDtypeStruct((MAX_BOXES,), jnp.bool_),
    "area": jax.ShapeDtypeStruct((MAX_BOXES,), jnp.float32),
    "size": jax.ShapeDtypeStruct((2,), jnp.float32),
    "original_size": jax.ShapeDtypeStruct((2,), jnp.float32),
  }
  train_metrics: ClassVar = objective.METRICS
  best: ClassVar = "ap"
  larger_is_better: ClassVar = True
  panels: ClassVar = {
    "loss in training": {
      "all": "train_loss",
      "proposals, object or not": "train_rpn_class",
      "proposals, boxes": "train_rpn_box",
      "head, classes": "train_head_class",
      "head, boxes": "train_head_box",
    },
    "average precision": {"AP [.5, .95]": "eval_ap", "AP50": "eval_ap50"},
  }
  head: ClassVar = ("rpn", "box_head")
  own_model_fields: ClassVar = ("num_classes",)
  network_fields: ClassVar = ("detection.anchor_sizes",)
  largest_batch: ClassVar = 8  # each has hundreds of regions
  table_heading: ClassVar = "score  xmin  ymin  xmax  ymax  class"

  @classmethod
  def network(cls, config) -> FasterRCNN:
    fields = config.detection
    if config.model.network not in networks.BACKBONES:
      raise UserError(
        f"config.model.network={config.model.network} has no maps for a detector; one of"
        f" {', '.join(networks.BACKBONES)} has"
      )
    return FasterRCNN(
      backbone=networks.network(config.model),
      num_classes=config.model.num_classes,
      anchors=_settings(fields).anchors_per_position,
      crop=fields.crop,
      test_proposals=fields.proposals,
    )

  @classmethod
  def count(cls, model, image_size):
    return detector.count_detector(model, image_size)

  @classmethod
  def positions(cls, config, mode):
    """Stage 4 sees the crops of all regions of a picture, and halves their side."""
    canvas = [side * side for side in stage_sides(config.data.image_size)[:-1]]
    fields = config.detection
    regions = fields.rois if mode == "train" else fields.proposals
    return [*canvas, regions * fields.crop**2, regions * ((fields.crop + 1) // 2) ** 2]

  @classmethod
  def from_config(cls, forward, config) -> "Detection":
    fields = config.detection
    return cls(forward, settings=_settings(fields), updates_statistics=fields.train_statistics)

  def loss(self, params, batch_stats, batch, keys):
    """The sum of four losses, see `losses.py`."""
    targets = {name: batch[name] for name in ("boxes", "label", "crowd", "size")}
    return objective.loss(
      self.forward.model,
      params,
      batch_stats,
      self._normalized(batch),
      targets,
      keys,
      self.settings,
      self.updates_statistics,
    )

  def _normalized(self, batch):
    return normalize(batch["image"], self.forward.mean, self.forward.std)

  def rows(self, params, batch_stats, batch):
    """What `average_precision` takes: objects and detections in pixels of the original picture."""
    found = self.predict({"params": params, "batch_stats": batch_stats}, batch)
    kept = {name: batch[name] for name in ("label", "crowd", "area")}
    return found | kept | {"boxes": _in_original_pixels(batch["boxes"], batch)}

  def figures(self, sums, rows):
    """AP, AP50, AP75 and AP by size: fractions."""
    from shufflenet_jax.tasks.detection.average_precision import average_precision

    return average_precision(rows)

  def describe(self, figures) -> str:
    """`AP 21.3 %, AP50 40.1 %`."""
    return f"AP {100 * figures['ap']:.1f} %, AP50 {100 * figures['ap50']:.1f} %"

  def predict(self, variables, batch):
    """Best first: `detected_boxes` float32 (n, 100, 4) in pixels of the picture, `scores`, `detected_label`."""
    boxes, scores, labels = detections.detect(
      self.forward.model, variables, self._normalized(batch), batch["size"], self.settings
    )
    return {
      "detected_boxes": _in_original_pixels(boxes, batch),
      "scores": scores,
      "detected_label": labels,
    }

  def answer(self, prediction, class_names) -> list[Detected]:
    """The objects that were found, best first."""
    rows = zip(prediction["scores"].tolist(), prediction["detected_label"].tolist(), prediction["detected_boxes"])
    return [Detected(score, class_names[label], tuple(box.tolist())) for score, label, box in rows if label >= 0]

  def answer_as_json(self, answer):
    """`objects`: class, score and box of each, COCO's [x, y, width, height]; also those with low scores."""
    return {"objects": [{"class": x.name, "score": x.score, "box": _xywh(x.box)} for x in answer]}

  def answer_as_boxes(self, answer) -> list[tuple[str, tuple[float, float, float, float]]]:
    """What `predict --draw` draws: of each object a text, and its box (ymin, xmin, ymax, xmax)."""
    return [(f"{x.name} {x.score:.2f}", x.box) for x in answer if x.score >= SHOWN_SCORE]

  def answer_as_rows(self, answer) -> list[str]:
    rows = [f"{x.score:5.2f}{_columns(x.box)}  {x.name}" for x in answer if x.score >= SHOWN_SCORE]
    return rows or [f"nothing with a score of {SHOWN_SCORE} or more"]

  def notes_from_scratch(self):
    if self.updates_statistics:
      return []
    return [
      "note: from scratch (no --config.init_from), but batch norm keeps its initial statistics, with which the loss is"
      " often not finite; --config.detection.train_statistics=true trains them"
    ]

  def adapt_params(self, params, fresh, names_before, names_now):
    """In the last layers, classes that the checkpoint knows by name keep their weights; the others get fresh ones."""
    from shufflenet_jax.tasks import known_classes  # here, because it imports more of the package than a step needs

    known = known_classes.known_classes(names_before, names_now)
    old, new = params["box_head"], fresh["box_head"]
    background = {len(names_now): len(names_before)}  # the last class
    classes = known_classes.copy_classes(new["classes"], old["classes"], known | background)
    # Four deltas of each class: (..., 4k) -> (..., k, 4) -> (..., 4, k), and back.
    by_class = [
      jax.tree.map(lambda x: x.reshape(*x.shape[:-1], -1, 4).swapaxes(-1, -2), h["deltas"]) for h in (new, old)
    ]
    deltas = known_classes.copy_classes(*by_class, known)
    deltas = jax.tree.map(lambda x: x.swapaxes(-1, -2).reshape(*x.shape[:-2], -1), deltas)
    return {**params, "box_head": {**old, "classes": classes, "deltas": deltas}}

  def describe_adaptation(self, where, names_before, names_now, dataset_classes) -> str:
    from shufflenet_jax.tasks import known_classes

    return known_classes.describe(where, names_before, names_now, dataset_classes)


def _settings(fields) -> Settings:
  """Those that a config's `detection` section sets."""
  sides = tuple(float(side) for side in fields.anchor_sizes)
  return Settings(anchor_sizes=sides, roi_samples=fields.rois, test_proposals=fields.proposals)


def _columns(box) -> str:
  ymin, xmin, ymax, xmax = box
  return "".join(f"{value:6.0f}" for value in (xmin, ymin, xmax, ymax))


def _xywh(box) -> list[float]:
  ymin, xmin, ymax, xmax = box
  return [round(value, 2) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]


def _in_original_pixels(boxes: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
  """Boxes (n, m, 4) in pixels of the canvas -> of the original picture."""
  scale = batch["original_size"] / batch["size"]
  return boxes * jnp.tile(scale, 2)[:, None]  # (n, 2) -> (n, 4) -> (n, 1, 4)
