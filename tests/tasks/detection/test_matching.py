"""Matching against a rendition in NumPy, and what crowds, padding and boxes without an area do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.tasks.detection import matching
from shufflenet_jax.tasks.detection.settings import Settings
from tests.tasks.detection import examples

SETTINGS = Settings()
match_anchors = jax.jit(matching.match_anchors, static_argnums=3)
match_proposals = jax.jit(matching.match_proposals, static_argnums=3)


def anchors_in_numpy(anchors, trained, boxes, crowds):
  """(positive, negative, object) by the words of the paper of Faster R-CNN, and of COCO for crowds."""
  iou, _ = examples.overlaps_in_numpy(anchors, boxes)
  positive, negative = np.zeros((2, len(anchors)), bool)
  for i in np.flatnonzero(trained):
    if iou[i].max() >= 0.7:
      positive[i] = True
  for j in range(len(boxes)):
    best = max(iou[i, j] for i in np.flatnonzero(trained))
    for i in np.flatnonzero(trained):
      if best > 0 and iou[i, j] == best:
        positive[i] = True
  _, in_crowd = examples.overlaps_in_numpy(anchors, crowds)
  for i in np.flatnonzero(trained & ~positive):
    negative[i] = iou[i].max() < 0.3 and not (in_crowd[i] > 0.7).any()
  return positive, negative, iou.argmax(1)


@pytest.mark.parametrize("seed", range(3))
def test_anchors_match_as_in_numpy(seed):
  rng = np.random.default_rng(seed)
  anchors, boxes, crowds = (examples.random_boxes(rng, count) for count in (300, 5, 2))
  trained = rng.uniform(size=300) < 0.8
  target = examples.targets([*boxes, *crowds], crowd=[False] * 5 + [True] * 2, padded_to=9)
  ours = match_anchors(jnp.asarray(anchors), jnp.asarray(trained), target, SETTINGS)
  positive, negative, best = anchors_in_numpy(anchors, trained, boxes, crowds)
  assert positive.any() and negative.any() and not (positive | negative).all()
  np.testing.assert_array_equal(ours.positive, positive)
  np.testing.assert_array_equal(ours.negative, negative)
  np.testing.assert_array_equal(np.asarray(ours.object)[positive], best[positive])


@pytest.mark.parametrize("seed", range(3))
def test_proposals_match_as_in_numpy(seed):
  rng = np.random.default_rng(seed)
  proposals, boxes, crowds = (examples.random_boxes(rng, count) for count in (300, 5, 2))
  valid = rng.uniform(size=300) < 0.8
  target = examples.targets([*boxes, *crowds], crowd=[False] * 5 + [True] * 2, padded_to=9)
  ours = match_proposals(jnp.asarray(proposals), jnp.asarray(valid), target, SETTINGS)
  iou, _ = examples.overlaps_in_numpy(proposals, boxes)
  _, in_crowd = examples.overlaps_in_numpy(proposals, crowds)
  positive = iou.max(1) >= 0.5
  negative = ~positive & ~(in_crowd > 0.7).any(1)
  assert (positive & valid).any() and (valid & ~positive & ~negative).any()
  np.testing.assert_array_equal(ours.positive, positive & valid)
  np.testing.assert_array_equal(ours.negative, negative & valid)
  np.testing.assert_array_equal(np.asarray(ours.object)[positive], iou.argmax(1)[positive])


def test_the_best_anchor_of_an_object_is_positive_at_any_overlap():
  anchors = jnp.asarray([[0, 0, 16, 16], [0, 0, 20, 20], [40, 40, 60, 60]], jnp.float32)
  target = examples.targets([[0, 0, 60, 60]])
  matches = match_anchors(anchors, jnp.ones(3, bool), target, SETTINGS)
  assert matches.positive.tolist() == [False, True, True]  # both cover a ninth of it
  without = match_anchors(anchors, jnp.asarray([True, False, False]), target, SETTINGS)
  assert without.positive.tolist() == [True, False, False]


def test_nothing_matches_padding_or_boxes_without_an_area():
  anchors = jnp.asarray([[0, 0, 16, 16], [-8, -8, 8, 8], [0, 0, 0, 0]], jnp.float32)
  for target in (
    examples.targets([]),
    examples.targets([[0, 0, 0, 0], [4, 4, 4, 12], [10, 10, 2, 2]]),
    examples.targets([[0, 0, 16, 16]], label=[-1]),
  ):
    for matches in (
      match_anchors(anchors, jnp.ones(3, bool), target, SETTINGS),
      match_proposals(anchors, jnp.ones(3, bool), target, SETTINGS),
    ):
      assert not matches.positive.any()
      assert matches.negative.all()


def test_a_crowd_is_neither_an_object_nor_background():
  boxes = jnp.asarray([[0, 0, 20, 20], [0, 0, 40, 40], [44, 44, 60, 60]], jnp.float32)
  target = examples.targets([[0, 0, 40, 40]], crowd=[True])
  for matches in (
    match_anchors(boxes, jnp.ones(3, bool), target, SETTINGS),
    match_proposals(boxes, jnp.ones(3, bool), target, SETTINGS),
  ):
    assert not matches.positive.any()
    assert matches.negative.tolist() == [False, False, True]
  # An object in a crowd is still one.
  target = examples.targets([[0, 0, 40, 40], [0, 0, 20, 20]], crowd=[True, False])
  assert match_proposals(boxes, jnp.ones(3, bool), target, SETTINGS).positive.tolist() == [True, False, False]
