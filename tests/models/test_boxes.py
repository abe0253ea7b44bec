"""Boxes against TensorFlow, the definitions in NumPy, and degenerate input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.models import boxes as box_ops

nms = jax.jit(box_ops.nms, static_argnums=2)


def random_boxes(rng, count: int, extent: float = 100.0) -> np.ndarray:
  corner = rng.uniform(0, extent, (count, 2))
  return np.concatenate([corner, corner + rng.uniform(1, extent / 2, (count, 2))], 1).astype(np.float32)


def overlaps_in_loops(a, b):
  """(iou, ioa), each (p, q), by the definitions."""
  iou, ioa = np.zeros((2, len(a), len(b)))
  for i, (y0, x0, y1, x1) in enumerate(a):
    for j, (v0, u0, v1, u1) in enumerate(b):
      common = max(min(y1, v1) - max(y0, v0), 0) * max(min(x1, u1) - max(x0, u0), 0)
      area = (y1 - y0) * (x1 - x0)
      iou[i, j], ioa[i, j] = common / (area + (v1 - v0) * (u1 - u0) - common), common / area
  return iou, ioa


def test_overlaps_are_the_definitions():
  rng = np.random.default_rng(0)
  a, b = random_boxes(rng, 20), random_boxes(rng, 30)
  iou, ioa = overlaps_in_loops(a, b)
  np.testing.assert_allclose(box_ops.iou(jnp.asarray(a), jnp.asarray(b)), iou, atol=1e-6)
  np.testing.assert_allclose(box_ops.ioa(jnp.asarray(a), jnp.asarray(b)), ioa, atol=1e-6)


def test_a_box_of_ten_pixels_is_ten_wide():
  """Without Caffe's "+1": a half of it has an IoU of exactly 0.5."""
  boxes = jnp.asarray([[0, 0, 10, 10], [0, 0, 5, 10]], jnp.float32)
  assert box_ops.area(boxes).tolist() == [100, 50]
  assert box_ops.iou(boxes, boxes).tolist() == [[1, 0.5], [0.5, 1]]


@pytest.mark.parametrize("weights", [box_ops.NO_WEIGHTS, (10.0, 10.0, 5.0, 5.0)])
def test_decode_inverts_encode(weights):
  rng = np.random.default_rng(1)
  boxes, anchors = (jnp.asarray(random_boxes(rng, 200)) for _ in range(2))
  deltas = box_ops.encode(boxes, anchors, weights)
  np.testing.assert_allclose(box_ops.decode(deltas, anchors, weights), boxes, atol=1e-4)
  np.testing.assert_allclose(box_ops.encode(anchors, anchors, weights), 0, atol=1e-6)


def test_encoding_is_equation_2_in_the_order_y_x_h_w():
  anchor, box = jnp.asarray([[0.0, 0.0, 10.0, 20.0]]), jnp.asarray([[2.0, 3.0, 22.0, 13.0]])
  expected = [(12 - 5) / 10 * 10, (8 - 10) / 20 * 10, np.log(20 / 10) * 5, np.log(10 / 20) * 5]
  np.testing.assert_allclose(box_ops.encode(box, anchor, (10.0, 10.0, 5.0, 5.0))[0], expected, rtol=1e-6)


def test_decode_limits_the_growth():
  anchor = jnp.asarray([[0.0, 0.0, 16.0, 16.0]])
  grown = box_ops.decode(jnp.asarray([[0.0, 0.0, 100.0, 100.0]]), anchor)
  np.testing.assert_allclose(grown, [[8 - 500, 8 - 500, 8 + 500, 8 + 500]], rtol=1e-5)


def test_clip_keeps_the_part_inside_each_picture():
  boxes = jnp.asarray([[[-5, 3, 20, 50], [40, 40, 50, 60]]] * 2, jnp.float32)
  size = jnp.asarray([[10, 30], [100, 45]], jnp.float32)
  expected = [[[0, 3, 10, 30], [10, 30, 10, 30]], [[0, 3, 20, 45], [40, 40, 50, 45]]]
  np.testing.assert_array_equal(box_ops.clip(boxes, size[:, None]), expected)


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5, 0.7])
def test_nms_is_tensorflows_on_50_sets(threshold):
  import tensorflow as tf

  rng = np.random.default_rng(int(100 * threshold))
  objects = np.stack([random_boxes(rng, 30) for _ in range(50)])
  objects[..., 2:] += 6  # so that no shift turns a box inside out, which TensorFlow would turn back
  sets = np.tile(objects, (1, 5, 1)) + rng.uniform(-3, 3, (50, 150, 4)).astype(np.float32)
  scores = np.sort(rng.uniform(size=(50, 150)).astype(np.float32), axis=1)[:, ::-1]
  kept = nms(jnp.asarray(sets), jnp.ones((50, 150), bool), threshold)
  for boxes, score, ours in zip(sets, scores, np.asarray(kept)):
    theirs = tf.image.non_max_suppression(boxes, score, 150, iou_threshold=threshold).numpy()
    assert 0 < len(theirs) < 150
    np.testing.assert_array_equal(np.flatnonzero(ours), np.sort(theirs))


def test_nms_of_a_chain_keeps_every_second_box():
  """Each box overlaps its neighbours only, so every decision depends on the one before: the most rounds there are."""
  begin = 6 * jnp.arange(40, dtype=jnp.float32)
  boxes = jnp.stack([jnp.zeros(40), begin, jnp.full(40, 10.0), begin + 10], axis=-1)
  kept = nms(boxes, jnp.ones(40, bool), 0.2)
  np.testing.assert_array_equal(kept, np.arange(40) % 2 == 0)


def test_nms_ignores_what_is_not_valid():
  boxes = jnp.asarray([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]], jnp.float32)
  assert nms(boxes, jnp.asarray([False, True, True]), 0.5).tolist() == [False, True, False]
  assert nms(boxes, jnp.zeros(3, bool), 0.5).tolist() == [False] * 3


def test_nms_of_a_batch_is_one_loop():
  boxes, valid = jnp.zeros((3, 20, 4)), jnp.ones((3, 20), bool)
  traced = jax.make_jaxpr(jax.vmap(lambda *x: box_ops.nms(*x, 0.5)))(boxes, valid)
  assert str(traced).count(" while[") == 1


def test_boxes_without_an_area_give_finite_values_and_gradients():
  boxes = jnp.asarray([[5, 5, 5, 5], [5, 5, 5, 9], [9, 9, 4, 4], [0, 0, 0, 0], [3, 3, 8, 8]], jnp.float32)

  def everything(boxes):
    overlaps = box_ops.iou(boxes, boxes).sum() + box_ops.ioa(boxes, boxes).sum()
    deltas = box_ops.encode(boxes, boxes[::-1])
    decoded = box_ops.clip(box_ops.decode(deltas, boxes), jnp.asarray([[6.0, 6.0]]))
    return overlaps + jnp.tanh(deltas).sum() + decoded.sum()

  value, gradient = jax.jit(jax.value_and_grad(everything))(boxes)
  assert bool(jnp.isfinite(value))
  assert bool(jnp.isfinite(gradient).all())
  overlaps = np.asarray(box_ops.iou(boxes, boxes))
  expected = np.zeros((5, 5))
  expected[4, 4] = 1
  np.testing.assert_array_equal(overlaps, expected)
