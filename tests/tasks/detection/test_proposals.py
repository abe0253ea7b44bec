"""From objectness and deltas to proposals."""

import jax
import jax.numpy as jnp
import numpy as np

from shufflenet_jax.models import boxes as box_ops
from shufflenet_jax.tasks.detection import anchors as anchor_ops
from shufflenet_jax.tasks.detection import proposals
from tests.tasks.detection import examples

SETTINGS = examples.SETTINGS
to_train = jax.jit(proposals.to_train, static_argnums=4)
to_recognise = jax.jit(proposals.to_recognise, static_argnums=4)
ANCHORS = jnp.asarray(anchor_ops.grid(64, 64, SETTINGS))
SIZE = jnp.asarray([[64.0, 64.0], [40.0, 30.0]])


def outputs(seed: int = 0):
  rng = np.random.default_rng(seed)
  objectness = rng.normal(size=(2, len(ANCHORS))).astype(np.float32)
  deltas = rng.normal(size=(2, len(ANCHORS), 4), scale=0.3).astype(np.float32)
  return jnp.asarray(objectness), jnp.asarray(deltas)


def in_numpy(objectness, deltas, size, before, after):
  """Greedy NMS in loops over the best anchors that are centred in the picture."""
  order = np.argsort(-objectness, kind="stable")
  centre = (np.asarray(ANCHORS)[:, :2] + np.asarray(ANCHORS)[:, 2:]) / 2
  order = [i for i in order if (centre[i] < size).all()][:before]
  kept = []
  for i in order:
    anchor, (ty, tx, th, tw) = np.asarray(ANCHORS)[i], deltas[i]
    height, width = anchor[2:] - anchor[:2]
    y, x = centre[i] + [ty * height, tx * width]
    height, width = height * np.exp(th), width * np.exp(tw)
    box = np.array([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
    box = np.clip(box, 0, [*size, *size]).astype(np.float32)
    if min(box[2] - box[0], box[3] - box[1]) < 1e-3:
      continue
    if not kept or examples.overlaps_in_numpy(box[None], np.stack(kept))[0].max() <= 0.7:
      kept.append(box)
  return np.stack(kept)[:after]


def test_proposals_are_those_of_loops_in_numpy():
  objectness, deltas = outputs()
  trained = to_train(objectness, deltas, ANCHORS, SIZE, SETTINGS)
  recognised = to_recognise(objectness, deltas, ANCHORS, SIZE, SETTINGS)
  assert trained[0].shape == (2, 40, 4)
  assert recognised[0].shape == (2, 10, 4)
  for i in range(2):
    picture = np.asarray(objectness[i]), np.asarray(deltas[i]), np.asarray(SIZE[i])
    boxes, valid = (np.asarray(x[i]) for x in trained)
    expected = in_numpy(*picture, before=40, after=40)
    assert len(expected) < 40
    np.testing.assert_allclose(boxes[valid], expected, atol=1e-4)
    boxes, valid = (np.asarray(x[i]) for x in recognised)
    expected = in_numpy(*picture, before=30, after=10)
    np.testing.assert_allclose(boxes[valid], expected, atol=1e-4)
    assert not boxes[~valid].any()


def test_proposals_stay_in_the_picture_however_high_the_padding_scores():
  objectness, deltas = outputs()
  inside = anchor_ops.centred_inside(ANCHORS, SIZE[1])
  objectness = jnp.where(inside[None], objectness, 50.0)
  boxes, valid = to_recognise(objectness, deltas, ANCHORS, SIZE, SETTINGS)
  assert int(valid[1].sum()) == 10
  assert bool((boxes[1][:, 2] <= 40).all() and (boxes[1][:, 3] <= 30).all())
  assert bool((box_ops.area(boxes[1]) > 0).all())


def test_padding_where_there_are_too_few_proposals():
  objectness, deltas = outputs()
  anchors = jnp.zeros_like(ANCHORS).at[:3].set(ANCHORS[:3])
  boxes, valid = to_recognise(objectness[:, :8], deltas[:, :8] * 0 - 100, anchors[:8], SIZE, SETTINGS)
  assert boxes.shape == (2, 8, 4)
  assert not valid.any()
  assert not boxes.any()


def test_no_gradient_flows_through_proposals():
  objectness, deltas = outputs()
  for function in (to_train, to_recognise):
    boxes, pullback = jax.vjp(lambda *x: function(*x, ANCHORS, SIZE, SETTINGS)[0], objectness, deltas)  # noqa: B023
    assert boxes.any()
    assert not any(x.any() for x in pullback(jnp.ones_like(boxes)))
