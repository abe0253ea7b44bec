"""From the outputs of the region proposal network to boxes."""

import jax
import jax.numpy as jnp

from shufflenet_jax.models import boxes as box_ops
from shufflenet_jax.tasks.detection import anchors as anchor_ops
from shufflenet_jax.tasks.detection.settings import Settings


def before_nms(
  objectness: jax.Array, deltas: jax.Array, anchors: jax.Array, size: jax.Array, count: int, settings: Settings
) -> tuple[jax.Array, jax.Array]:
  """The proposals of the highest objectness, decoded and clipped to the picture, for a batch.

  Args:
    objectness: float32 (n, a), logits.
    deltas: float32 (n, a, 4).
    anchors: (a, 4).
    size: float32 (n, 2), the pictures' true height and width on the canvas.
    count: how many, or all if there are fewer.
    settings: `min_proposal_side` is used.

  Returns:
    boxes float32 (n, k, 4), sorted by objectness, and bool (n, k), which of them are valid: long enough, and of
    anchors in the picture. No gradient flows through them.
  """
  objectness, deltas = jax.lax.stop_gradient((objectness, deltas))
  inside = jax.vmap(anchor_ops.centred_inside, (None, 0))(anchors, size)
  highest, index = jax.lax.top_k(jnp.where(inside, objectness, -jnp.inf), min(count, objectness.shape[1]))
  # All are decoded, because a TPU computes boxes faster than it gathers both deltas and anchors.
  boxes = box_ops.clip(box_ops.decode(deltas, anchors[None]), size[:, None])
  boxes = jnp.take_along_axis(boxes, index[..., None], axis=1)  # (n, a, 4) -> (n, k, 4)
  ymin, xmin, ymax, xmax = box_ops.unstack(boxes)
  shorter_side = jnp.minimum(ymax - ymin, xmax - xmin)
  return boxes, (highest > -jnp.inf) & (shorter_side >= settings.min_proposal_side)


def to_train(objectness, deltas, anchors, size, settings: Settings) -> tuple[jax.Array, jax.Array]:
  """The proposals to train the head with; see `before_nms`.

  Returns:
    boxes float32 (n, train_proposals, 4) and bool (n, train_proposals), which of them remain after NMS.
  """
  boxes, valid = before_nms(objectness, deltas, anchors, size, settings.train_proposals, settings)
  return boxes, box_ops.nms(boxes, valid, settings.proposal_nms_iou)


def to_recognise(objectness, deltas, anchors, size, settings: Settings) -> tuple[jax.Array, jax.Array]:
  """The proposals of inference; see `before_nms`.

  Returns:
    boxes float32 (n, p, 4) and bool (n, p), which of them are not padding; p is `test_proposals`, or the number of
    anchors if that is less. The first are those of the highest objectness.
  """
  boxes, valid = before_nms(objectness, deltas, anchors, size, settings.test_anchors, settings)
  kept = box_ops.nms(boxes, valid, settings.proposal_nms_iou)
  # top_k is stable: the kept boxes come first, and remain sorted by objectness.
  _, index = jax.lax.top_k(kept.astype(jnp.int32), min(settings.test_proposals, kept.shape[1]))
  kept = jnp.take_along_axis(kept, index, axis=1)
  boxes = jnp.take_along_axis(boxes, index[..., None], axis=1)
  return jnp.where(kept[..., None], boxes, 0), kept
