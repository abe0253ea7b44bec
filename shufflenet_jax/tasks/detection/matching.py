"""Which anchors and proposals contain which object, and which contain none."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from shufflenet_jax.models import boxes as box_ops
from shufflenet_jax.tasks.detection.settings import Settings


class Targets(NamedTuple):
  """The objects of a picture, or with a leading axis n, of a batch.

  Attributes:
    boxes: float32 (m, 4), in pixels of the canvas.
    label: int32 (m,), -1 for padding.
    crowd: bool (m,), whether a box is a region of several objects that are not told apart (COCO's `iscrowd`).
    size: float32 (2,), the picture's true height and width on the canvas, which it shares with padding.
  """

  boxes: jax.Array
  label: jax.Array
  crowd: jax.Array
  size: jax.Array


class Matches(NamedTuple):
  """How p boxes match the objects of a picture. A box that is neither positive nor negative is ignored.

  Attributes:
    positive: bool (p,).
    negative: bool (p,).
    object: int32 (p,), the object of the highest IoU; of no meaning where that is 0.
  """

  positive: jax.Array
  negative: jax.Array
  object: jax.Array


def objects(targets: Targets) -> jax.Array:
  """Which boxes are single objects that can be found: bool (m,). Padding, crowds and boxes without an area are not."""
  return (targets.label >= 0) & ~targets.crowd & (box_ops.area(targets.boxes) > 0)


def matched_boxes(matches: Matches, targets: Targets) -> jax.Array:
  """The box of each match's object: float32 (p, 4).

  It is computed as a product with one-hot rows, which gives the exact values because it is in full precision. A gather
  would be slow on a TPU, which gathers the rows for all anchors one by one.
  """
  chosen = jax.nn.one_hot(matches.object, len(targets.label), dtype=jnp.float32)  # (p, m)
  return jnp.matmul(chosen, targets.boxes, precision=jax.lax.Precision.HIGHEST)


def match_anchors(anchors: jax.Array, trained: jax.Array, targets: Targets, settings: Settings) -> Matches:
  """The objectness that each anchor should have.

  Positive are anchors with an IoU of at least `rpn_positive_iou` with an object, and the best anchors of each object,
  if they overlap it. The target of such a best anchor is the object that the anchor itself overlaps most, possibly
  another one, as in Caffe.

  Args:
    anchors: (a, 4).
    trained: bool (a,); the others are ignored.
    targets: of one picture.
    settings: the `rpn_` IoUs and `crowd_ioa` are used.
  """
  overlaps = jnp.where(trained[:, None], _object_iou(anchors, targets), 0)  # (a, m)
  highest = overlaps.max(axis=1)
  of_object = overlaps.max(axis=0, keepdims=True)  # (a, m) -> (1, m)
  is_best = ((overlaps == of_object) & (of_object > 0)).any(axis=1)
  positive = (highest >= settings.rpn_positive_iou) | is_best
  negative = ~positive & (highest < settings.rpn_negative_iou) & ~_in_crowd(anchors, targets, settings)
  return Matches(positive & trained, negative & trained, overlaps.argmax(axis=1).astype(jnp.int32))


def match_proposals(proposals: jax.Array, valid: jax.Array, targets: Targets, settings: Settings) -> Matches:
  """Which proposals are foreground (positive) and background (negative).

  Args:
    proposals: (p, 4).
    valid: bool (p,); the others are ignored.
    targets: of one picture.
    settings: `roi_foreground_iou` and `crowd_ioa` are used.
  """
  overlaps = _object_iou(proposals, targets)  # (p, m)
  positive = overlaps.max(axis=1) >= settings.roi_foreground_iou
  negative = ~positive & ~_in_crowd(proposals, targets, settings)
  return Matches(positive & valid, negative & valid, overlaps.argmax(axis=1).astype(jnp.int32))


def _object_iou(boxes: jax.Array, targets: Targets) -> jax.Array:
  """(p, 4) -> (p, m), 0 for what is not an object."""
  return jnp.where(objects(targets)[None], box_ops.iou(boxes, targets.boxes), 0)


def _in_crowd(boxes: jax.Array, targets: Targets, settings: Settings) -> jax.Array:
  """(p, 4) -> bool (p,)."""
  crowd = targets.crowd & (targets.label >= 0)
  return (crowd[None] & (box_ops.ioa(boxes, targets.boxes) > settings.crowd_ioa)).any(axis=1)
