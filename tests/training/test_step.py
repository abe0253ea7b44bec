"""Single steps: by hand in NumPy, mirrored, and the same on any number of devices."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import config_dict

from shufflenet_jax import tasks
from shufflenet_jax.config import settings
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import UserError
from shufflenet_jax.tasks.classification import Classification
from shufflenet_jax.tasks.forward import Forward
from shufflenet_jax.training import optimizer as optimizers
from shufflenet_jax.training import step as steps
from tests.conftest import small_config


def test_schedule_and_decay():
  schedule = optimizers.linear_decay(0.5, 100)
  np.testing.assert_allclose([schedule(s) for s in (0, 50, 100)], [0.5, 0.25, 0.0], atol=1e-7)
  warm = optimizers.linear_decay(0.5, 110, 10)
  np.testing.assert_allclose([warm(s) for s in (0, 5, 10, 60, 110)], [0, 0.25, 0.5, 0.25, 0], atol=1e-7)


@pytest.mark.parametrize(("decay", "bias_decays"), [("kernels", False), ("all", True)])
def test_sgd_is_the_textbook_update(config, decay, bias_decays):
  config.optimizer.update({"decay": decay, "warmup_steps": 0, "weight_decay": 0.1, "learning_rate": 0.5})
  optimizer, _ = optimizers.sgd(config.optimizer, 10)
  params, grads = (
    {"kernel": np.full((2, 2), 3.0), "bias": np.full(2, 3.0)},
    {"kernel": np.ones((2, 2)), "bias": np.ones(2)},
  )
  state, momentum = optimizer.init(params), {"kernel": 0.0, "bias": 0.0}
  for step in range(2):
    updates, state = optimizer.update(grads, state, params)
    for name, decays in (("kernel", True), ("bias", bias_decays)):
      momentum[name] = 0.9 * momentum[name] + 1.0 + (0.1 * params[name] if decays else 0.0)
      np.testing.assert_allclose(updates[name], -0.5 * (1 - step / 10) * momentum[name], rtol=1e-6)
    params = jax.tree.map(np.add, params, updates)


class Linear(nn.Module):
  """Logits are the sums of each channel, so that steps can be computed by hand."""

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(3, use_bias=False, kernel_init=nn.initializers.ones, name="classifier")(images.sum((1, 2)))


def hand_batch():
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (8, 2, 2, 3)).astype(np.uint8),
    "label": rng.integers(0, 3, 8).astype(np.int32),
  }


def hand_logits(batch, kernel, mean, std):
  return ((batch["image"].astype(np.float64) - mean) / std).sum((1, 2)) @ kernel


def log_softmax(x):
  return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


@pytest.mark.parametrize(("devices", "accumulate_steps"), [(1, 1), (4, 1), (1, 4), (2, 2)])
def test_a_step_by_hand(devices, accumulate_steps):
  """Normalisation, smoothing, gradient mean, decay, momentum and learning rate of two steps, in NumPy."""
  mean, std = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
  batch, smoothing, decay, peak = hand_batch(), 0.1, 0.01, 0.5
  optimizer_config = config_dict.ConfigDict(
    {"decay": "all", "warmup_steps": 0, "learning_rate": peak, "momentum": 0.9, "weight_decay": decay}
  )
  optimizer, schedule = optimizers.sgd(optimizer_config, 10)
  on = mesh.data_mesh(jax.devices()[:devices])
  state = mesh.replicate(steps.init_state(Linear(), optimizer, 2, 0), on)
  step_fn = steps.compile_train_step(
    on,
    task=Classification(Forward(Linear(), mean, std), label_smoothing=smoothing),
    optimizer=optimizer,
    schedule=schedule,
    accumulate_steps=accumulate_steps,
  )
  kernel, momentum = np.ones((3, 3)), 0.0
  features = ((batch["image"].astype(np.float64) - mean) / std).sum((1, 2))
  targets = np.eye(3)[batch["label"]] * (1 - smoothing) + smoothing / 3
  for step in range(2):
    logits = hand_logits(batch, kernel, np.array(mean), np.array(std))
    state, figures = step_fn(state, mesh.split_batch(batch, on))
    assert float(figures["loss"]) == pytest.approx(-(targets * log_softmax(logits)).sum(-1).mean(), rel=1e-5)
    assert float(figures["accuracy"]) == pytest.approx((logits.argmax(-1) == batch["label"]).mean(), abs=1e-6)
    assert float(figures["learning_rate"]) == pytest.approx(peak * (1 - step / 10))
    gradient = features.T @ (np.exp(log_softmax(logits)) - targets) / 8
    momentum = 0.9 * momentum + gradient + decay * kernel
    kernel = kernel - peak * (1 - step / 10) * momentum
    np.testing.assert_allclose(state.params["classifier"]["kernel"], kernel, rtol=2e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_an_evaluation_by_hand_ignores_what_is_masked(devices):
  """Eight classes; half the batch is padding whose label 0 wins, as a zero-filled batch might."""

  class Given(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
      return images.reshape(images.shape[0], -1)[:, :8] / 10  # (n, 2, 2, 3) -> (n, 8)

  rng = np.random.default_rng(1)
  batch = {
    "image": rng.permuted(np.tile(np.arange(12, dtype=np.uint8) * 20, (8, 1)), axis=1).reshape(8, 2, 2, 3),
    "label": rng.integers(0, 8, 8).astype(np.int32),
    "mask": np.arange(8) % 2 == 0,
  }
  batch["image"][1::2], batch["label"][1::2] = 0, 0
  batch["image"][1::2, 0, 0, 0] = 255
  mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
  on = mesh.data_mesh(jax.devices()[:devices])
  eval_fn = steps.compile_eval_step(on, task=Classification(Forward(Given(), mean, std)))
  state = steps.TrainState(0, 0, {}, {}, ())
  sums, _ = jax.device_get(eval_fn(state, mesh.split_batch(batch, on)))
  logits = ((batch["image"].astype(np.float64) - mean) / std).reshape(8, -1)[:, :8] / 10
  order = np.argsort(-logits, axis=-1)
  rank = (order == batch["label"][:, None]).argmax(-1)
  kept = batch["mask"]
  assert (sums["examples"], sums["top1"], sums["top5"]) == (4, (rank[kept] < 1).sum(), (rank[kept] < 5).sum())
  losses = -log_softmax(logits)[np.arange(8), batch["label"]]
  assert sums["loss"] == pytest.approx(losses[kept].sum(), rel=1e-5)


class Flat(nn.Module):
  """One dense layer over all pixels, to which a picture and its mirror image are two."""

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(10, name="classifier")(images.reshape(images.shape[0], -1))  # (n, h, w, c) -> (n, h * w * c)


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_the_step_mirrors_the_pictures_that_are_to_be_mirrored(config, accumulate_steps):
  """A picture that is to be mirrored trains as its mirror image does, with micro-batches too."""
  config.optimizer.warmup_steps = 0  # or the first rate is 0
  on = mesh.data_mesh(jax.devices()[:2])
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
  labels, flip = np.arange(8, dtype=np.int32), rng.permutation(8) < 4
  mirrored = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
  optimizer, schedule = optimizers.sgd(config.optimizer, 10)
  arguments = settings.step_arguments(config, accumulate_steps)
  step_fn = steps.compile_train_step(
    on, task=tasks.build(Flat(), config), optimizer=optimizer, schedule=schedule, **arguments
  )

  def trained(batch):
    state = mesh.replicate(steps.init_state(Flat(), optimizer, 8, 0), on)
    return jax.device_get(step_fn(state, mesh.split_batch(batch | {"label": labels}, on)))

  marked, done, neither = ({"image": images, "flip": flip}, {"image": mirrored}, {"image": images})
  jax.tree.map(np.testing.assert_array_equal, trained(marked), trained(done))
  assert trained(marked)[1]["loss"] != trained(neither)[1]["loss"]


@functools.cache
def step_of_groups_of_4(devices):
  """A step of the small network on 16 images, of which batch norm sees 4 together: (state, figures, compiled HLO)."""
  config = small_config("")
  config.batch_norm_group = 4
  on = mesh.data_mesh(jax.devices()[:devices])
  model, _ = tasks.network_for_images(config)
  optimizer, schedule = optimizers.sgd(config.optimizer, 10)
  arguments = settings.step_arguments(config, mesh.micro_batches(config, devices))
  step_fn = steps.compile_train_step(
    on, task=tasks.build(model, config), optimizer=optimizer, schedule=schedule, **arguments
  )
  rng = np.random.default_rng(0)
  batch = {"image": rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8), "label": np.arange(16, dtype=np.int32) % 10}
  state = steps.init_state(model, optimizer, 32, 0)
  state = mesh.replicate(state.replace(step=state.step + 1), on)  # at step 0 the rate is 0
  batch = mesh.split_batch(batch, on)
  compiled = step_fn.lower(state, batch).compile()
  return *jax.device_get(compiled(state, batch)), compiled.as_text()


def test_batch_norm_groups_make_the_same_step_on_any_devices():
  """Running statistics too: two and two groups one after another, or four side by side."""
  state, figures, _ = step_of_groups_of_4(2)
  expected, expected_figures, _ = step_of_groups_of_4(4)
  assert float(figures["loss"]) == pytest.approx(float(expected_figures["loss"]), rel=1e-6)
  for a, b in ((state.params, expected.params), (state.batch_stats, expected.batch_stats)):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4, rtol=1e-4), a, b)


def test_a_step_has_one_all_reduce():
  _, _, hlo = step_of_groups_of_4(4)
  assert len([line for line in hlo.splitlines() if " all-reduce(" in line or " all-reduce-start(" in line]) == 1


@pytest.mark.parametrize(("devices", "expected"), [(1, 4), (2, 2), (4, 1)])
def test_groups_are_micro_batches(config, devices, expected):
  config.batch_norm_group = 4
  assert mesh.micro_batches(config, devices) == expected
  config.accumulate_steps = expected
  assert mesh.micro_batches(config, devices) == expected
  config.batch_norm_group = 0
  assert mesh.micro_batches(config, devices) == expected


@pytest.mark.parametrize(
  ("group", "accumulate", "message"),
  [
    (5, 1, r"batch_norm_group=5 does not divide a device's 4 images \(batch_size=16 over 4 devices\); nearest: 4"),
    (
      2,
      4,
      "accumulate_steps=4 makes statistics groups of 1 images, but config.batch_norm_group=2; set only one of the two",
    ),
  ],
)
def test_groups_that_cannot_be_made(config, group, accumulate, message):
  config.batch_norm_group, config.accumulate_steps = group, accumulate
  with pytest.raises(UserError, match=message):
    mesh.micro_batches(config, 4)
