"""Whole runs: reproducible, resumable, the same on any number of devices, evaluated from the checkpoint alone."""

import json

import jax
import numpy as np
import pytest

from shufflenet_jax import checkpoint, evaluate, mesh, metrics, network, optim, train_step
from shufflenet_jax.data import datasets, pipeline
from shufflenet_jax.errors import UserError
from shufflenet_jax.train import train

ONE = jax.devices()[:1]


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
  """Trains once for the session's tests: (config, workdir, state, figures)."""
  cache = {}

  def once(config):
    if not cache:
      workdir = tmp_path_factory.mktemp("run")
      cache["run"] = (config, str(workdir), *train(config, str(workdir), ONE))
    return cache["run"]

  return once


def test_same_seed_gives_the_same_checkpoint(run, config, tmp_path):
  _, _, expected, _ = run(config)
  state, _ = train(config, str(tmp_path), ONE)
  assert_equal(state, expected)


def test_stopped_and_resumed_equals_never_stopped(run, config, tmp_path):
  _, _, expected, _ = run(config)
  train(config, str(tmp_path), ONE, stop_after_step=7)
  state, _ = train(config, str(tmp_path), ONE)
  assert_equal(state, expected)
  steps = [line["step"] for line in metrics.read(tmp_path) if "train_loss" in line]
  assert steps == sorted(set(steps))


def test_workdir_holds_what_it_promises(run, config):
  _, workdir, state, figures = run(config)
  found = checkpoint.find(workdir)
  assert found.step == 12 == state.step
  assert found.config.to_dict() == config.to_dict()
  assert found.class_names == tuple("0123456789")
  assert_equal(found.restore_variables(), {"params": state.params, "batch_stats": state.batch_stats})
  with open(f"{workdir}/config.json") as f:
    assert json.load(f) == checkpoint.to_json(config)
  lines = metrics.read(workdir)
  assert {line["step"] for line in lines if "train_loss" in line} == {4, 8, 12}
  assert lines[-1]["eval_top1"] == figures["top1"]
  with open(f"{workdir}/curves.png", "rb") as f:
    assert f.read(8) == b"\x89PNG\r\n\x1a\n"


def test_evaluation_from_the_checkpoint_counts_the_same_on_1_and_4_devices(run, config):
  _, workdir, _, figures = run(config)
  found = checkpoint.find(f"{workdir}/checkpoints/12")
  for devices in (ONE, jax.devices()):
    restored = evaluate.evaluate(found, found.config, devices)
    assert restored["examples"] == 355
    assert (restored["top1"], restored["top5"]) == (figures["top1"], figures["top5"])
    assert restored["loss"] == pytest.approx(figures["loss"], rel=1e-5)


def one_step(config, devices):
  model = network.build(config.model)
  optimizer, schedule = optim.sgd(config.optimizer, config.num_train_steps)
  on = mesh.data_mesh(devices)
  state = mesh.replicate(train_step.init_state(model, optimizer, 32, 0), on)
  step_fn, _ = train_step.compile_steps(
    on, model=model, optimizer=optimizer, schedule=schedule, mean=tuple(config.data.mean), std=tuple(config.data.std),
    label_smoothing=0.1, accumulate_steps=config.accumulate_steps,
  )  # fmt: skip
  split = datasets.open_split("digits", config.data.data_dir, "train", 10)
  batch = next(
    pipeline.train_batches(split, config.data, batch_size=config.batch_size, num_classes=10, seed=0, start_step=0)
  )
  sharded = mesh.split_batch({k: batch[k] for k in ("image", "label")}, on)
  return step_fn(state, sharded), batch, step_fn.lower(state_like(state), sharded).compile().as_text()


def state_like(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def test_four_devices_take_the_same_examples_and_one_all_reduce_group(config):
  config.accumulate_steps = 4
  (one, one_metrics), batch_1, _ = one_step(config, ONE)
  config.accumulate_steps = 1
  (four, four_metrics), batch_4, hlo = one_step(config, jax.devices())
  np.testing.assert_array_equal(batch_1["id"], batch_4["id"])
  # Batch norm sees the same four groups either way, one after another or side by side.
  assert float(one_metrics["loss"]) == pytest.approx(float(four_metrics["loss"]), rel=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), one.params, four.params)
  reduced = [line for line in hlo.splitlines() if " all-reduce(" in line or " all-reduce-start(" in line]
  assert len(reduced) == 1


def test_schedule_and_decay():
  schedule = optim.linear_decay(0.5, 100)
  np.testing.assert_allclose([schedule(s) for s in (0, 50, 100)], [0.5, 0.25, 0.0], atol=1e-7)
  warm = optim.linear_decay(0.5, 110, 10)
  np.testing.assert_allclose([warm(s) for s in (0, 5, 10, 60, 110)], [0, 0.25, 0.5, 0.25, 0], atol=1e-7)


@pytest.mark.parametrize(("decay", "bias_decays"), [("kernels", False), ("all", True)])
def test_sgd_is_the_textbook_update(config, decay, bias_decays):
  config.optimizer.update({"decay": decay, "warmup_steps": 0, "weight_decay": 0.1, "learning_rate": 0.5})
  optimizer, _ = optim.sgd(config.optimizer, 10)
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


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model.groups", 5, "groups=5 is not in the paper's Table 1; one of 1, 2, 3, 4, 8"),
    ("model.scale", -1.0, "scale=-1.0 must be a positive number"),
    ("model.dtype", "float61", "'float61' is not one of float32, bfloat16"),
    ("batch_size", 18, "config.batch_size=18 does not divide over 4 devices; nearest: 16, 20"),
    ("eval_batch_size", 2, "config.eval_batch_size=2 does not divide over 4 devices; nearest: 4"),
    ("optimizer.decay", "some", "'some' is not one of all, kernels"),
    ("optimizer.warmup_steps", 12, "warmup_steps=12 must lie from 0"),
    ("log_every_steps", 0, "config.log_every_steps=0 must be 1 or more"),
    ("data.name", "imagenet2012", "prepare it with"),
  ],
)
def test_bad_configs_write_nothing(config, tmp_path, field, value, message):
  section, _, name = field.rpartition(".")
  (config[section] if section else config)[name] = value
  with pytest.raises(UserError, match=message):
    train(config, str(tmp_path / "workdir"))
  assert not (tmp_path / "workdir").exists()


def test_another_architecture_in_the_workdir_is_refused(run, config):
  _, workdir, _, _ = run(config)
  config.model.groups = 2
  with pytest.raises(UserError, match=r"another network \(model.groups: 3 -> 2\)"):
    train(config, workdir, ONE)
  assert checkpoint.find(workdir).config.model.groups == 3


@pytest.mark.parametrize("make", [lambda p: p / "absent", lambda p: p])
def test_a_path_that_is_no_checkpoint(tmp_path, make):
  with pytest.raises(UserError, match="(does not exist|is neither a work directory nor a checkpoint); give a WORKDIR"):
    checkpoint.find(str(make(tmp_path)))
