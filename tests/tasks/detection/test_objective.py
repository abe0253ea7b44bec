"""The loss of a batch: finite for every kind of picture, the same however grouped, and compiled once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.tasks.detection import objective
from shufflenet_jax.tasks.detection.settings import Settings
from tests.tasks.detection import examples

PICTURES = {
  "objects": examples.targets([[4, 4, 30, 30], [20, 30, 60, 62]], [0, 2]),
  "no boxes": examples.targets([]),
  "only crowds": examples.targets([[0, 0, 64, 64], [3, 3, 30, 30]], [0, 1], crowd=[True, True]),
  "no area": examples.targets([[5, 5, 5, 5], [5, 5, 5, 30], [30, 30, 10, 10]]),
  "an object and a box without an area": examples.targets([[7, 7, 7, 7], [4, 4, 30, 30]]),
  "smaller than an anchor": examples.targets([[0, 0, 5, 5]], size=(6, 6)),
}


@pytest.fixture(scope="module")
def gradients():
  """A jitted function (images, targets, keys) -> (metrics, gradients)."""
  variables, model = examples.variables(), examples.detector()

  def of(params, images, targets, keys):
    loss, _, metrics = objective.loss(model, params, variables["batch_stats"], images, targets, keys, examples.SETTINGS)
    return loss, metrics

  compiled = jax.jit(jax.value_and_grad(of, has_aux=True))

  def run(images, targets, keys):
    (_, metrics), grads = compiled(variables["params"], images, targets, keys)
    return metrics, grads

  run.compiled = compiled
  return run


def images_and_keys(n: int):
  return jax.random.normal(jax.random.key(5), (n, 64, 64, 3)), jax.random.split(jax.random.key(6), n)


@pytest.mark.parametrize("name", PICTURES)
def test_losses_and_gradients_are_finite(gradients, name):
  images, keys = images_and_keys(1)
  metrics, grads = gradients(images, examples.batch(PICTURES[name]), keys)
  assert set(metrics) == set(objective.METRICS)
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((metrics, grads)))
  assert float(metrics["loss"]) == pytest.approx(sum(float(metrics[part]) for part in objective.METRICS[1:]), rel=1e-5)
  objects = name in ("objects", "an object and a box without an area", "smaller than an anchor")
  assert (float(metrics["head_box"]) > 0) == objects
  # Where a crowd covers the whole picture, nothing is background.
  assert (float(metrics["head_class"]) > 0) == (name != "only crowds")
  assert (float(metrics["rpn_class"]) > 0) == (name not in ("only crowds", "smaller than an anchor"))
  if name in ("no boxes", "no area"):  # a picture without objects is all background
    assert float(metrics["rpn_box"]) == 0


def test_a_picture_has_the_same_loss_in_any_batch(gradients):
  images, keys = images_and_keys(len(PICTURES))
  together, grads = gradients(images, examples.batch(*PICTURES.values()), keys)
  alone = [
    gradients(images[i : i + 1], examples.batch(picture), keys[i : i + 1])
    for i, picture in enumerate(PICTURES.values())
  ]
  mean, mean_grads = jax.tree.map(lambda *x: np.mean(x, axis=0), *alone)
  for name in objective.METRICS:
    assert float(together[name]) == pytest.approx(float(mean[name]), rel=1e-5, abs=1e-7)
  for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(mean_grads)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_statistics_can_be_trained():
  """Those of every norm, in the stages that see pictures and in the one that sees regions, move towards the batch's."""
  variables, model = examples.variables(), examples.detector()
  images, keys = images_and_keys(2)
  arguments = images, examples.batch(PICTURES["objects"], PICTURES["no boxes"]), keys, examples.SETTINGS
  before = variables["batch_stats"]
  step = jax.jit(lambda stats: objective.loss(model, variables["params"], stats, *arguments, updates_statistics=True))
  loss, after, _ = step(before)
  assert jnp.isfinite(loss)
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
  assert all(jax.tree.leaves(changed)) and {"stem_norm", "stage2_unit1", "stage3_unit1", "stage4_unit1"} == set(changed)
  again, _, _ = step(jax.tree.map(lambda x: x + 1, before))
  assert loss == again  # the running statistics are not used


def test_the_program_is_compiled_once_for_any_number_of_boxes(gradients):
  images, keys = images_and_keys(1)
  gradients(images, examples.batch(PICTURES["objects"]), keys)
  before = gradients.compiled._cache_size()
  for count in range(6):
    gradients(images, examples.batch(examples.targets([[4, 4, 30, 30]] * count)), keys)
  assert gradients.compiled._cache_size() == before


def test_padding_changes_nothing(gradients):
  """Not even boxes that were left in it."""
  images, keys = images_and_keys(1)
  boxes = [[4, 4, 30, 30], [20, 30, 60, 62], [1, 1, 20, 20]]
  clean, dirty = examples.targets(boxes[:2], [0, 2]), examples.targets(boxes, [0, 2, -1], crowd=[False, False, True])
  metrics = [gradients(images, examples.batch(picture), keys)[0] for picture in (clean, dirty)]
  assert [float(metrics[0][name]) for name in metrics[0]] == [float(metrics[1][name]) for name in metrics[1]]


def test_only_a_matching_network_is_accepted():
  images, keys = images_and_keys(1)
  loss = functools.partial(
    objective.loss, examples.detector(), {}, {}, images, examples.batch(PICTURES["objects"]), keys
  )
  with pytest.raises(ValueError, match="the network has 6 anchors per position, but there are 4 sizes x 3 ratios"):
    loss(Settings())
