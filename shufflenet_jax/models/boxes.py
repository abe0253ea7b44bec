"""Boxes: overlaps, the encoding that a detector regresses, and non-maximum suppression.

A box is float32 (..., 4) = (ymin, xmin, ymax, xmax) in pixels. Coordinates are continuous: a box that covers one pixel
is 1 wide, without the "+1" of Caffe's code. A box whose ymax <= ymin or xmax <= xmin has no area and overlaps nothing.
No function gives NaN for such boxes, and neither do their gradients.
"""

import math

import jax
import jax.numpy as jnp

# Shorter sides count as this many pixels where a number is divided by them or their logarithm is taken.
MIN_SIDE = 1e-3
# Largest `th` and `tw` that `decode` applies: Detectron's, by which a 16-pixel anchor grows to 1000 pixels.
MAX_LOG_SCALE = math.log(1000 / 16)
# Weights of (ty, tx, th, tw).
NO_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def unstack(boxes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """(..., 4) -> its four coordinates, (...) each."""
  return tuple(boxes[..., i] for i in range(4))


def area(boxes: jax.Array) -> jax.Array:
  """(..., 4) -> (...), square pixels; 0 for boxes of no or negative size."""
  ymin, xmin, ymax, xmax = unstack(boxes)
  return jnp.maximum(ymax - ymin, 0) * jnp.maximum(xmax - xmin, 0)


def intersection(a: jax.Array, b: jax.Array) -> jax.Array:
  """Areas that pairs have in common: (..., p, 4), (..., q, 4) -> (..., p, q)."""
  ymin_a, xmin_a, ymax_a, xmax_a = (v[..., :, None] for v in unstack(a))  # (..., p) -> (..., p, 1)
  ymin_b, xmin_b, ymax_b, xmax_b = (v[..., None, :] for v in unstack(b))  # (..., q) -> (..., 1, q)
  height = jnp.minimum(ymax_a, ymax_b) - jnp.maximum(ymin_a, ymin_b)
  width = jnp.minimum(xmax_a, xmax_b) - jnp.maximum(xmin_a, xmin_b)
  return jnp.maximum(height, 0) * jnp.maximum(width, 0)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
  """Intersection over union of pairs: (..., p, 4), (..., q, 4) -> (..., p, q), between 0 and 1."""
  common = intersection(a, b)
  return _ratio(common, area(a)[..., :, None] + area(b)[..., None, :] - common)


def ioa(a: jax.Array, b: jax.Array) -> jax.Array:
  """The share of a's area that is inside b: (..., p, 4), (..., q, 4) -> (..., p, q), between 0 and 1."""
  return _ratio(intersection(a, b), area(a)[..., :, None])


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
  """The quotient, and 0 where the denominator is 0. The inner `where` keeps NaN out of the gradient, too."""
  positive = denominator > 0
  return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0)


def encode(boxes: jax.Array, anchors: jax.Array, weights: tuple[float, ...] = NO_WEIGHTS) -> jax.Array:
  """Deltas (ty, tx, th, tw) that turn anchors into boxes: (..., 4), (..., 4) -> (..., 4).

  Equation 2 of Faster R-CNN (arXiv 1506.01497): offsets of the centre in units of the anchor's sides, and logarithms
  of the ratios of sides; each times its weight.
  """
  y, x, h, w = _center_and_sides(boxes)
  anchor_y, anchor_x, anchor_h, anchor_w = _center_and_sides(anchors)
  deltas = ((y - anchor_y) / anchor_h, (x - anchor_x) / anchor_w, jnp.log(h / anchor_h), jnp.log(w / anchor_w))
  return jnp.stack([delta * weight for delta, weight in zip(deltas, weights)], axis=-1)


def decode(deltas: jax.Array, anchors: jax.Array, weights: tuple[float, ...] = NO_WEIGHTS) -> jax.Array:
  """The inverse of `encode`: (..., 4), (..., 4) -> boxes (..., 4).

  `th` and `tw` are clipped to `MAX_LOG_SCALE`, so that a network at its beginning gives no infinite boxes.
  """
  ty, tx, th, tw = (delta / weight for delta, weight in zip(unstack(deltas), weights))
  anchor_y, anchor_x, anchor_h, anchor_w = _center_and_sides(anchors)
  y, x = anchor_y + ty * anchor_h, anchor_x + tx * anchor_w
  half_h = 0.5 * anchor_h * jnp.exp(jnp.minimum(th, MAX_LOG_SCALE))
  half_w = 0.5 * anchor_w * jnp.exp(jnp.minimum(tw, MAX_LOG_SCALE))
  return jnp.stack([y - half_h, x - half_w, y + half_h, x + half_w], axis=-1)


def _center_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """(..., 4) -> y and x of the centre, height and width, which are at least `MIN_SIDE`."""
  ymin, xmin, ymax, xmax = unstack(boxes)
  h, w = jnp.maximum(ymax - ymin, MIN_SIDE), jnp.maximum(xmax - xmin, MIN_SIDE)
  return 0.5 * (ymin + ymax), 0.5 * (xmin + xmax), h, w


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
  """The part of each box that is inside a picture: (..., 4) -> (..., 4).

  Args:
    boxes: (..., 4).
    size: (..., 2), height and width in pixels; it has as many axes as `boxes`, and is broadcast along axes of length 1.
  """
  bounds = jnp.concatenate([size, size], axis=-1)  # (..., 2) -> (..., 4)
  return jnp.clip(boxes, 0, bounds)


def nms(boxes: jax.Array, valid: jax.Array, threshold: float) -> jax.Array:
  """Greedy non-maximum suppression: a box is kept unless its IoU with a kept box of a higher score exceeds `threshold`.

  Greedy suppression goes through the boxes one after the other. Here, each round decides all boxes at once from the
  decisions of the previous round, until none changes. The decision on a box depends only on the boxes that precede it,
  so after i rounds the first i decisions are final, and the fixed point is the greedy result. It is reached in 3 to 10
  rounds for 2,000 proposals, in one loop for all leading axes together. (The tiled algorithm for this that several
  detectors for TPUs share gives wrong results for thresholds below 0.5.)

  Args:
    boxes: (..., k, 4), sorted by score, the highest first.
    valid: bool (..., k); a box that is not valid is not kept and suppresses no other.
    threshold: an IoU, between 0 and 1.

  Returns:
    bool (..., k), which boxes are kept.
  """
  k = boxes.shape[-2]
  before = jnp.asarray(jnp.arange(k)[:, None] < jnp.arange(k)[None, :])
  suppresses = (iou(boxes, boxes) > threshold) & jax.lax.broadcast_to_rank(before, boxes.ndim)  # (..., k, k)

  def decide(state):
    kept, _ = state
    suppressed = jnp.any(suppresses & kept[..., :, None], axis=-2)  # (..., k, k) -> (..., k)
    decided = valid & ~suppressed
    return decided, jnp.any(decided != kept)

  kept, _ = jax.lax.while_loop(lambda state: state[1], decide, decide((valid, True)))
  return kept
