"""The losses against renditions in NumPy, with samples so large that everything is drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.tasks.detection import losses
from tests.tasks.detection import examples

KEY = jax.random.key(0)
rpn_losses, sample_regions, head_losses = (
  jax.jit(function, static_argnames="settings")
  for function in (losses.rpn_losses, losses.sample_regions, losses.head_losses)
)
EVERYTHING = dataclasses.replace(
  examples.SETTINGS, rpn_samples=4000, rpn_positive_share=0.5, roi_samples=400, roi_foreground_share=0.5
)


def encode(box, anchor):
  (y0, x0, y1, x1), (v0, u0, v1, u1) = box, anchor
  h, w, ah, aw = y1 - y0, x1 - x0, v1 - v0, u1 - u0
  return np.array([(y0 + y1 - v0 - v1) / 2 / ah, (x0 + x1 - u0 - u1) / 2 / aw, np.log(h / ah), np.log(w / aw)])


def smooth_l1(x, beta):
  return sum(0.5 * v**2 / beta if abs(v) < beta else abs(v) - beta / 2 for v in x)


@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_smooth_l1_is_its_definition(beta):
  x = np.linspace(-2, 2, 41)
  np.testing.assert_allclose(losses.smooth_l1(jnp.asarray(x), beta), [smooth_l1([v], beta) for v in x], atol=1e-6)


def test_rpn_losses_are_those_of_loops():
  rng = np.random.default_rng(0)
  anchors, boxes = examples.random_boxes(rng, 200), examples.random_boxes(rng, 4)
  objectness, deltas = rng.normal(size=200), rng.normal(size=(200, 4), scale=0.3)
  arrays = (jnp.asarray(x, jnp.float32) for x in (objectness, deltas, anchors))
  ours = rpn_losses(*arrays, jnp.ones(200, bool), examples.targets(boxes), KEY, settings=EVERYTHING)
  iou, _ = examples.overlaps_in_numpy(anchors, boxes)
  classes, box, number = 0.0, 0.0, 0
  for i in range(200):
    if iou[i].max() >= 0.7 or (iou[i] == iou.max(0)).any():
      classes += np.log1p(np.exp(-objectness[i]))
      box += smooth_l1(deltas[i] - encode(boxes[iou[i].argmax()], anchors[i]), 1 / 9)
      number += 1
    elif iou[i].max() < 0.3:
      classes += np.log1p(np.exp(objectness[i]))
      number += 1
  assert 0 < number < 200
  np.testing.assert_allclose(ours, [classes / number, box / number], rtol=1e-4)


def test_head_losses_are_those_of_loops():
  rng = np.random.default_rng(1)
  proposals, boxes, labels = examples.random_boxes(rng, 150), examples.random_boxes(rng, 3), [2, 0, 2]
  target = examples.targets(boxes, labels)
  rois, label, of_object = sample_regions(jnp.asarray(proposals), jnp.ones(150, bool), target, KEY, settings=EVERYTHING)
  number = int((label > -2).sum())
  assert number == 150 + 3  # the objects are among the proposals
  logits, deltas = rng.normal(size=(400, 4)), rng.normal(size=(400, 3, 4))
  arrays = (jnp.asarray(x, jnp.float32) for x in (logits, deltas))
  ours = head_losses(*arrays, rois, label, of_object, settings=EVERYTHING)
  classes, box = 0.0, 0.0
  rois = np.asarray(rois)
  iou, _ = examples.overlaps_in_numpy(rois, boxes)
  for i in range(number):
    foreground = iou[i].max() >= 0.5
    wanted = labels[iou[i].argmax()] if foreground else 3
    classes += np.log(np.exp(logits[i]).sum()) - logits[i, wanted]
    if foreground:
      target_deltas = encode(boxes[iou[i].argmax()], rois[i]) * [10, 10, 5, 5]
      box += smooth_l1(deltas[i, wanted] - target_deltas, 1.0)
  np.testing.assert_allclose(ours, [classes / number, box / number], rtol=1e-4)


def test_regions_have_the_label_of_their_object_and_padding_has_none():
  boxes = [[0, 0, 20, 20], [30, 30, 60, 60], [10, 40, 20, 60], [50, 5, 50, 9]]
  target = examples.targets(boxes, [1, 2, 0, 1], crowd=[False, False, True, False])
  proposals = jnp.asarray(
    [[0, 0, 20, 19], [31, 30, 60, 60], [40, 0, 60, 20], [10, 40, 20, 59], [0, 0, 20, 20]], jnp.float32
  )
  valid = jnp.asarray([True, True, True, True, False])
  rois, label, _ = sample_regions(proposals, valid, target, KEY, settings=examples.SETTINGS)
  # Two foreground proposals and the two objects themselves; one background. The crowd and the box without an area count
  # as neither.
  assert sorted(np.asarray(label)[np.asarray(label) >= 0].tolist()) == [1, 1, 2, 2]
  assert np.asarray(label == -1).sum() == 1
  np.testing.assert_array_equal(np.asarray(rois)[np.asarray(label) == -1], [[40, 0, 60, 20]])
  assert not np.asarray(rois)[np.asarray(label) == -2].any()
