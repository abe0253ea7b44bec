"""Whole runs: reproducible, resumable, the same on any number of devices, evaluated from the checkpoint alone."""

import json
import shutil
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
import tensorflow as tf
from ml_collections import config_dict

from shufflenet_jax import checkpoint, evaluate, fine_tune, mesh, metrics, network, optim, settings, train_step
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
    restored = evaluate.evaluate(found, found.config, devices=devices)
    assert restored["examples"] == 355
    assert (restored["top1"], restored["top5"]) == (figures["top1"], figures["top5"])
    assert restored["loss"] == pytest.approx(figures["loss"], rel=1e-5)


def one_step(config, devices):
  model = network.build(config.model)
  optimizer, schedule = optim.sgd(config.optimizer, config.num_train_steps)
  on = mesh.data_mesh(devices)
  state = mesh.replicate(train_step.init_state(model, optimizer, 32, 0), on)
  step_fn = train_step.compile_train_step(
    on,
    model=model,
    optimizer=optimizer,
    schedule=schedule,
    mean=tuple(config.data.mean),
    std=tuple(config.data.std),
    label_smoothing=0.1,
    accumulate_steps=config.accumulate_steps,
  )
  split = datasets.open_split(config.data, "train", 10)
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
    ("model.network", "lenet", "'lenet' is not one of shufflenet_v1, mobilenet_v1"),
    ("model.shuffle", "maybe", "'maybe' is not one of paper, release, none"),
    ("model.stem", 7, "stem=7 must be a multiple of groups=3"),
    ("model.repeats", (1, 1), r"repeats=\(1, 1\) must be three positive numbers"),
    ("model.num_classes", 9, "has 10 classes, the network num_classes=9; set --config.model.num_classes=10"),
    ("batch_size", 18, "config.batch_size=18 does not divide over 4 devices; nearest: 16, 20"),
    ("batch_size", -16, "config.batch_size=-16 does not divide over 4 devices; nearest: 4"),
    ("eval_batch_size", 2, "config.eval_batch_size=2 does not divide over 4 devices; nearest: 4"),
    ("accumulate_steps", 0, "config.accumulate_steps=0 must be 1 or more"),
    ("accumulate_steps", 3, "batch_size=16 does not divide over 4 devices in 3 micro-batches; nearest: 12, 24"),
    ("num_train_steps", 0, "config.num_train_steps=0 must be 1 or more"),
    ("optimizer.decay", "some", "'some' is not one of all, kernels"),
    ("optimizer.warmup_steps", 12, "warmup_steps=12 must be from 0 to below num_train_steps"),
    ("optimizer.label_smoothing", 2.0, "label_smoothing=2.0 must be from 0 to below 1"),
    ("log_every_steps", 0, "config.log_every_steps=0 must be 1 or more"),
    ("data.image_size", 64, "config.data.eval_resize=32 must be at least data.image_size"),
    ("data.std", (0.0, 1.0, 1.0), "three numbers but 0"),
    ("data.min_crop_area", 2.0, "min_crop_area=2.0 must be above 0 and at most 1"),
    ("data.name", "imagenet2012", "prepare it with"),
    ("data.data_dir", __file__, "digits cannot be prepared there"),
    ("init_from", "nowhere", "^--config.init_from=nowhere does not exist; give a WORKDIR"),
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
  with pytest.raises(UserError, match=r"another network \(model.groups: 3 -> 2\); choose another --workdir"):
    train(config, workdir, ONE)
  assert checkpoint.find(workdir).config.model.groups == 3


@pytest.mark.parametrize("make", [lambda p: p / "absent", lambda p: p])
def test_a_path_that_is_no_checkpoint(tmp_path, make):
  with pytest.raises(UserError, match="(does not exist|is neither a work directory nor a checkpoint); give a WORKDIR"):
    checkpoint.find(str(make(tmp_path)))


def test_a_checkpoint_is_known_by_what_it_holds_not_by_its_name(run, config, tmp_path):
  _, workdir, state, _ = run(config)
  shutil.copytree(f"{workdir}/checkpoints/12", tmp_path / "digits_v1")
  found = checkpoint.find(str(tmp_path / "digits_v1"))
  assert found.step == 12
  assert_equal(found.restore_variables()["params"], state.params)


def test_a_damaged_checkpoint_says_so(run, config, tmp_path):
  _, workdir, _, _ = run(config)
  copy = tmp_path / "damaged"
  shutil.copytree(f"{workdir}/checkpoints/12", copy)
  for path in (copy / "state").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(UserError, match="cannot be read .* use an earlier one"):
    checkpoint.find(str(copy)).restore_variables()


def test_newest_and_best_checkpoints_stay(config, tmp_path):
  """Top-1 falls after step 2, so that the best is none of the newest."""
  config.keep_checkpoints = 2
  checkpoints = checkpoint.manager(str(tmp_path), config.keep_checkpoints)
  for step, top1 in ((1, 0.2), (2, 0.9), (3, 0.5), (4, None), (5, 0.4), (6, None)):
    metrics_of_step = None if top1 is None else {"top1": top1}
    checkpoint.save(checkpoints, step, {"params": {"w": np.ones(2)}}, config, ["a"], metrics_of_step)
  checkpoints.close()
  assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6]


def test_overriding_the_network_of_a_checkpoint_is_refused(run, config):
  found = checkpoint.find(run(config)[1])
  config.model.groups = 2
  with pytest.raises(UserError, match=r"another network \(model.groups: 3 -> 2\); its network cannot be overridden"):
    evaluate.evaluate(found, config)


def test_fine_tuning_takes_weights_and_picture_scaling_and_makes_a_new_head(run, config, tmp_path, capsys):
  _, workdir, state, _ = run(config)
  tuned = config.copy_and_resolve_references()
  tuned.init_from = workdir
  tuned.model.groups, tuned.model.num_classes, tuned.data.mean = 1, 12, (0.0, 0.0, 0.0)
  tuned.optimizer.learning_rate, tuned.optimizer.warmup_steps, tuned.num_train_steps = 1e-9, 0, 1
  tuned_state, _ = train(tuned, str(tmp_path / "w"), ONE)
  assert tuned.model.groups == 3
  assert tuned.data.mean == config.data.mean
  said = capsys.readouterr().out
  assert "sets the network and the scaling of pictures; the config's own are set aside:" in said
  lines = {line.strip() for line in said.splitlines()}
  assert {"data.mean: [0.0, 0.0, 0.0] -> [127.5, 127.5, 127.5]", "model.groups: 1 -> 3"} <= lines
  assert not any(line.startswith(("model.num_classes:", "model.dtype:", "data.flip:")) for line in lines)
  head = tuned_state.params.pop("classifier")
  assert head["kernel"].shape[-1] == 12
  expected = {k: v for k, v in state.params.items() if k != "classifier"}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned_state.params, expected)


@pytest.mark.parametrize("bias", [False, True])
def test_classes_that_the_checkpoint_knows_by_name_keep_their_weights(config, bias):
  config.model.classifier_bias = bias
  optimizer, _ = optim.sgd(config.optimizer, 10)

  def state(seed, num_classes):
    config.model.num_classes = num_classes
    return train_step.init_state(network.build_for_images(config)[0], optimizer, 32, seed)

  old, new = state(0, 4), state(1, 3)
  old.params["classifier"] = jax.tree.map(lambda x: x + 1, old.params["classifier"])
  pretrained = types.SimpleNamespace(
    path="old",
    class_names=("n01 dog", "n02 cat", "n03 newt", "1"),
    restore_variables=lambda: {"params": old.params, "batch_stats": old.batch_stats},
  )
  started = fine_tune.start_from(pretrained, new, ("n03", "n09", "1"))
  for name, now in started.params["classifier"].items():
    before, fresh = old.params["classifier"][name], new.params["classifier"][name]
    np.testing.assert_array_equal(now[..., 0], before[..., 2])
    np.testing.assert_array_equal(now[..., 1:], fresh[..., 1:])  # a number is no name
  jax.tree.map(np.testing.assert_array_equal, started.params["stage2_unit1"], old.params["stage2_unit1"])


def test_fine_tuning_goes_on_where_its_source_is_gone(run, config, tmp_path):
  shutil.copytree(run(config)[1], tmp_path / "source")
  config.init_from, config.num_train_steps = str(tmp_path / "source"), 3
  train(config, str(tmp_path / "w"), ONE)
  shutil.rmtree(tmp_path / "source")
  assert train(config, str(tmp_path / "w"), ONE)[0].step == 3


@pytest.fixture
def photographs(tmp_path, config):
  """Twenty pictures of two classes; the config reads them."""
  for i in range(20):
    path = tmp_path / "photographs" / ("train" if i < 16 else "val") / ("ant", "bee")[i % 2] / f"{i:02d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(np.full((33, 40, 3), 10 * i, np.uint8)).numpy())
  config.data.name, config.data.data_dir = "folder", str(tmp_path / "photographs")
  config.data.train_split, config.data.eval_split = "train", "val"
  config.batch_size, config.num_train_steps, config.eval_batch_size = 4, 8, 4
  config.eval_every_steps = config.checkpoint_every_steps = 8
  config.log_every_steps, config.optimizer.warmup_steps = 1, 0
  return tmp_path / "photographs"


def test_what_was_trained_is_saved_where_a_picture_turns_out_bad(photographs, config, tmp_path):
  config.data.max_bad_train = 0
  split = datasets.open_split(config.data, "train", 10)
  arguments = {"batch_size": 4, "num_classes": 10, "seed": 0, "start_step": 0}
  ids = [b["id"] for b, _ in zip(pipeline.train_batches(split, config.data, **arguments), range(4))]
  label, number = divmod(int(ids[2][0]), 8)
  (photographs / "train" / ("ant", "bee")[label] / f"{2 * number + label:02d}.png").write_bytes(b"no picture")
  with pytest.raises(UserError, match="cannot be decoded"):
    train(config, str(tmp_path / "w"), ONE)
  assert checkpoint.find(str(tmp_path / "w")).step == 2


def test_a_run_does_not_go_on_with_other_classes(photographs, config, tmp_path):
  config.num_train_steps = 1
  _, figures = train(config, str(tmp_path / "w"), ONE)
  assert figures["examples"] == 4
  found = checkpoint.find(str(tmp_path / "w"))
  assert found.class_names[:3] == ("ant", "bee", "2")
  for split in ("train", "val"):
    (photographs / split / "ant").rename(photographs / split / "wasp")
  config.num_train_steps = 2
  with pytest.raises(UserError, match="trained on other classes \\('ant' is 'bee' in .*train\\); choose another"):
    train(config, str(tmp_path / "w"), ONE)
  with pytest.raises(UserError, match="wasp is no class of the checkpoint; its 10 classes are named as"):
    evaluate.evaluate(found, found.config)


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
  optimizer, schedule = optim.sgd(optimizer_config, 10)
  on = mesh.data_mesh(jax.devices()[:devices])
  state = mesh.replicate(train_step.init_state(Linear(), optimizer, 2, 0), on)
  step_fn = train_step.compile_train_step(
    on,
    model=Linear(),
    optimizer=optimizer,
    schedule=schedule,
    mean=mean,
    std=std,
    label_smoothing=smoothing,
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
  eval_fn = train_step.compile_eval_step(on, model=Given(), mean=mean, std=std)
  state = train_step.TrainState(0, {}, {}, ())
  sums = jax.device_get(eval_fn(state, mesh.split_batch(batch, on)))
  logits = ((batch["image"].astype(np.float64) - mean) / std).reshape(8, -1)[:, :8] / 10
  order = np.argsort(-logits, axis=-1)
  rank = (order == batch["label"][:, None]).argmax(-1)
  kept = batch["mask"]
  assert (sums["examples"], sums["top1"], sums["top5"]) == (4, (rank[kept] < 1).sum(), (rank[kept] < 5).sum())
  losses = -log_softmax(logits)[np.arange(8), batch["label"]]
  assert sums["loss"] == pytest.approx(losses[kept].sum(), rel=1e-5)


def test_the_step_mirrors_what_it_is_told_to(config):
  """A picture that is to be mirrored trains as its mirror image does, with micro-batches too."""
  config.accumulate_steps = 2
  on = mesh.data_mesh(jax.devices()[:2])
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
  labels, flip = np.arange(8, dtype=np.int32), rng.random(8) < 0.5
  assert 2 < flip.sum() < 6
  mirrored = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
  model, _ = network.build_for_images(config)
  optimizer, schedule = optim.sgd(config.optimizer, 10)
  arguments = settings.step_arguments(config)
  step_fn = train_step.compile_train_step(on, model=model, optimizer=optimizer, schedule=schedule, **arguments)

  def trained(batch):
    state = mesh.replicate(train_step.init_state(model, optimizer, 32, 0), on)
    return jax.device_get(step_fn(state, mesh.split_batch(batch | {"label": labels}, on)))

  told, done, neither = ({"image": images, "flip": flip}, {"image": mirrored}, {"image": images})
  jax.tree.map(np.testing.assert_array_equal, trained(told), trained(done))
  assert trained(told)[1]["loss"] != trained(neither)[1]["loss"]
