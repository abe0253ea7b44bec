"""Detections: scores, suppression within a class, padding and shapes."""

import jax
import jax.numpy as jnp
import numpy as np

from shufflenet_jax.models import boxes as box_ops
from shufflenet_jax.tasks.detection import detections
from tests.tasks.detection import examples

SETTINGS = examples.SETTINGS
SIZE = jnp.asarray([60.0, 50.0])
jitted = jax.jit(detections.select, static_argnums=5)


def select(probabilities, rois, deltas=None, valid=None):
  """`detections.select` for regions whose classes have these probabilities; the last is the background."""
  logits, rois = jnp.log(jnp.asarray(probabilities, jnp.float32)), jnp.asarray(rois, jnp.float32)
  deltas = jnp.zeros((len(rois), logits.shape[1] - 1, 4)) if deltas is None else deltas
  valid = jnp.ones(len(rois), bool) if valid is None else jnp.asarray(valid)
  return [np.asarray(x) for x in jitted(logits, deltas, rois, valid, SIZE, SETTINGS)]


def test_suppression_is_within_a_class():
  rois = [[0, 0, 20, 20], [0, 0, 20, 18], [30, 20, 50, 40]]
  boxes, scores, labels = select([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.04, 0.46]], rois)
  assert boxes.shape == (12, 4) and scores.shape == (12,) and labels.shape == (12,)
  assert labels.tolist() == [1, 0, 0] + [-1] * 9
  np.testing.assert_allclose(scores[:3], [0.7, 0.6, 0.5], rtol=1e-5)
  np.testing.assert_allclose(boxes[:3], [rois[1], rois[0], rois[2]], atol=1e-5)
  assert not boxes[3:].any() and not scores[3:].any()


def test_only_scores_above_the_threshold_and_real_regions_count():
  rois = [[0, 0, 20, 20], [30, 20, 50, 40], [0, 30, 10, 50]]
  _, scores, labels = select(
    [[0.05, 0.04, 0.91], [0.9, 0.05, 0.05], [0.06, 0.01, 0.93]], rois, valid=[True, False, True]
  )
  assert labels.tolist() == [0] + [-1] * 11
  np.testing.assert_allclose(scores[0], 0.06, rtol=1e-5)


def test_no_detections_are_all_padding():
  boxes, scores, labels = select([[0.01, 0.01, 0.98]] * 4, [[0, 0, 20, 20]] * 4)
  assert (labels == -1).all()
  assert not scores.any() and not boxes.any()


def test_boxes_are_decoded_with_the_deltas_of_their_class_and_clipped_to_the_picture():
  roi, wanted = jnp.asarray([[10.0, 10.0, 30.0, 30.0]]), jnp.asarray([[20.0, 5.0, 70.0, 20.0]])
  deltas = jnp.zeros((1, 2, 4)).at[:, 1].set(box_ops.encode(wanted, roi, (10.0, 10.0, 5.0, 5.0)))
  boxes, _, labels = select([[0.3, 0.6, 0.1]], roi, deltas)
  assert labels[:2].tolist() == [1, 0]
  np.testing.assert_allclose(boxes[:2], [[20, 5, 60, 20], [10, 10, 30, 30]], atol=1e-4)


def test_a_detector_answers_in_fixed_shapes_and_each_picture_alone():
  variables, model = examples.variables(), examples.detector()
  images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
  size = jnp.asarray([[64.0, 64.0], [40.0, 30.0]])
  detect = jax.jit(lambda *x: detections.detect(model, variables, *x, SETTINGS))
  together = detect(images, size)
  assert [(x.shape, x.dtype) for x in together] == [
    ((2, 12, 4), jnp.float32),
    ((2, 12), jnp.float32),
    ((2, 12), jnp.int32),
  ]
  boxes, scores, labels = (np.asarray(x) for x in together)
  assert (labels[1] >= 0).any()
  assert (boxes[1, :, 2] <= 40).all() and (boxes[1, :, 3] <= 30).all()
  assert (np.diff(scores) <= 0).all()
  for i in range(2):
    alone = detect(images[i : i + 1], size[i : i + 1])
    for ours, theirs in zip(alone, together):
      np.testing.assert_allclose(ours[0], theirs[i], rtol=1e-4, atol=1e-4)
