"""The answer for a picture: the boxes, scores and labels of the objects in it."""

from typing import Any

import jax
import jax.numpy as jnp

from shufflenet_jax.models import boxes as box_ops
from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.tasks.detection import proposals
from shufflenet_jax.tasks.detection.objective import check_anchors
from shufflenet_jax.tasks.detection.settings import Settings


def detect(
  model: FasterRCNN, variables: dict[str, Any], images: jax.Array, size: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The detections of a batch, at most `settings.detections` (d) per picture.

  Args:
    model: its `anchors` must be `settings.anchors_per_position`.
    variables: `params` and `batch_stats`.
    images: float32 (n, h, w, 3), normalised canvases.
    size: float32 (n, 2), the pictures' true height and width on the canvas.
    settings: of inference.

  Returns:
    boxes float32 (n, d, 4), in pixels of the canvas; scores float32 (n, d), from the highest to the lowest; labels
    int32 (n, d). Padding has boxes and scores of 0 and the label -1.

  Raises:
    ValueError: a network with another number of anchors.
  """
  anchors = check_anchors(model, images, settings)
  features, objectness, deltas = model.apply(variables, images, method="propose")
  rois, valid = proposals.to_recognise(objectness, deltas, anchors, size, settings)
  logits, deltas = model.apply(variables, features, rois, method="recognise")
  return jax.vmap(lambda *arrays: select(*arrays, settings))(logits, deltas, rois, valid, size)


def select(
  logits: jax.Array, deltas: jax.Array, rois: jax.Array, valid: jax.Array, size: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The detections of one picture from what the head computes for its regions.

  A region can be an object of several classes. NMS is applied within each class.

  Args:
    logits: float32 (r, num_classes + 1), the background last.
    deltas: float32 (r, num_classes, 4).
    rois: float32 (r, 4).
    valid: bool (r,); the others are padding.
    size: float32 (2,), the picture's true height and width on the canvas.
    settings: `box_weights`, `min_score`, `nms_iou` and `detections` are used.

  Returns:
    boxes (d, 4), scores (d,), labels (d,), as in `detect`.
  """
  r, num_classes, _ = deltas.shape
  scores = jax.nn.softmax(logits)[:, :num_classes].T  # (r, num_classes + 1) -> (num_classes, r)
  scores = jnp.where(valid[None] & (scores > settings.min_score), scores, 0)
  boxes = box_ops.decode(deltas.transpose(1, 0, 2), rois[None], settings.box_weights)  # (num_classes, r, 4)
  boxes = box_ops.clip(boxes, size[None, None])
  scores, order = jax.lax.top_k(scores, r)
  boxes = jnp.take_along_axis(boxes, order[..., None], axis=1)
  kept = box_ops.nms(boxes, (scores > 0) & (box_ops.area(boxes) > 0), settings.nms_iou)

  best = jnp.where(kept, scores, 0).reshape(num_classes * r)  # (num_classes, r) -> (num_classes*r,)
  missing = max(settings.detections - num_classes * r, 0)
  best, index = jax.lax.top_k(best, settings.detections - missing)
  found = best > 0
  boxes = jnp.where(found[:, None], boxes.reshape(num_classes * r, 4)[index], 0)  # (num_classes, r, 4) -> (.., 4)
  label = jnp.where(found, index // r, -1).astype(jnp.int32)
  rows = (0, missing)
  return jnp.pad(boxes, (rows, (0, 0))), jnp.pad(best, rows), jnp.pad(label, rows, constant_values=-1)
