"""Steps whose numbers are not finite change nothing; one too many ends the run with a dump that can be replayed."""

import contextlib
import io
import json
import shutil
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint, recovery
from shufflenet_jax.config import settings
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import UserError
from shufflenet_jax.training import metrics, replay
from shufflenet_jax.training.loop import train
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import all_finite, compile_train_step, init_state
from tests.commands import command
from tests.conftest import small_config


class Small(nn.Module):
  """Batch norm and one layer."""

  @nn.compact
  def __call__(self, images, train=False):
    x = nn.BatchNorm(use_running_average=not train)(images.mean((1, 2)))  # (n, h, w, c) -> (n, c)
    return nn.Dense(10, name="classifier")(x)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_step_that_is_not_finite_changes_counts_alone(config, devices):
  config.max_skipped_steps = 2
  on = mesh.data_mesh(jax.devices()[:devices])
  optimizer, schedule = sgd(config.optimizer, config.num_train_steps)
  step_fn = compile_train_step(
    on,
    task=tasks.build(Small(), config),
    optimizer=optimizer,
    schedule=schedule,
    **settings.step_arguments(config, 1),
  )
  state = init_state(Small(), optimizer, 32, 0)
  kernel = state.params["classifier"]["kernel"]
  state.params["classifier"]["kernel"] = kernel.at[0, 0].set(jnp.inf)
  before = jax.device_get(state)
  state = mesh.replicate(state, on)
  rng = np.random.default_rng(0)
  for steps, skipped in [(1, 1), (2, 2), (2, 3), (2, 4)]:
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    batch = {"image": images, "label": np.arange(16, dtype=np.int32) % 10}
    state, figures = step_fn(state, mesh.split_batch(batch, on))
    assert not figures["finite"]
    assert (int(state.step), int(state.skipped), int(figures["skipped"])) == (steps, skipped, skipped)
  after = jax.device_get(state)
  jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
  jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
  trace = [x for x in jax.tree.leaves(after.opt_state) if np.ndim(x)]
  assert trace
  assert not any(np.any(x) for x in trace)
  counts = [x for x in jax.tree.leaves(after.opt_state) if not np.ndim(x)]
  assert counts == [2]  # the learning rate goes on falling


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_in_any_array_is_noticed(bad):
  """Arrays of the same shape, too, which are looked at together."""
  largest = np.finfo(np.float32).max
  whole = [np.full(shape, largest, np.float32) for shape in [(3,), (2, 3), (3,), (), (3,)]]
  assert all_finite(whole)
  for i, x in enumerate(whole):
    for position in np.ndindex(x.shape):
      spoiled = [y.copy() for y in whole]
      spoiled[i][position] = bad
      assert not all_finite(spoiled)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, data_dir):
  """A run whose learning rate is beyond all bounds: from step 2 on no loss is finite; 7 may be skipped, 9 ends it."""
  config, workdir = small_config(data_dir), tmp_path_factory.mktemp("ended")
  config.optimizer.warmup_steps, config.optimizer.learning_rate = 0, 1e38
  config.max_skipped_steps = 7
  with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(UserError) as raised:
    train(config, str(workdir), jax.devices()[:1])
  return types.SimpleNamespace(
    workdir=workdir, dump=workdir / "nonfinite/9", message=str(raised.value), said=said.getvalue()
  )


def test_none_may_be_skipped_unless_the_config_says_so(config):
  assert config.max_skipped_steps == 0


def test_the_run_ends_with_a_dump_that_a_command_replays(ended):
  assert "step 9: the loss is not finite (loss nan, learning rate" in ended.message
  assert f"python -m shufflenet_jax.replay --dump={ended.dump}" in ended.message
  with np.load(ended.dump / "examples.0.npz") as examples:
    ids = examples["id"].tolist()
  assert f"on examples {', '.join(map(str, ids[:8]))}, ...;" in ended.message
  found = checkpoint.find(ended.dump)
  assert found.step == 8
  said = []
  newest, _ = recovery.newest_whole(ended.workdir, said.append)
  assert (newest.step, said) == (6, [f"reading {newest.path} ..."])  # nothing bad among the checkpoints
  done = command("replay", f"--dump={ended.dump}")
  assert done.returncode == 0, done.stderr
  assert "statistics group 0: loss nan; gradients not finite: " in done.stdout
  assert f"examples {', '.join(map(str, ids))}" in done.stdout


def npz(**arrays):
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


@pytest.mark.parametrize(
  ("file", "content"),
  [
    ("examples.0.npz", b"PK"),
    ("examples.0.npz", b""),
    ("examples.0.npz", npz(id=np.arange(16))),
    ("examples.0.npz", npz(id=np.arange(2), image=np.zeros((2, 32, 32, 3), np.uint8), label=np.zeros(2, np.int32))),
    ("step.json", b'{"processes": 0}'),
    ("step.json", b'{"processes": "1"}'),
    ("step.json", b"{}"),
  ],
  ids=range(7),
)
def test_a_dump_that_is_not_whole_is_one_line(ended, tmp_path, file, content):
  shutil.copytree(ended.dump, tmp_path / "9")
  (tmp_path / "9" / file).write_bytes(content)
  with pytest.raises(UserError, match="is not complete.*; give WORKDIR/nonfinite/STEP"):
    list(replay.replay(tmp_path / "9"))


def test_a_workdir_is_no_dump(ended):
  with pytest.raises(UserError, match="is no dump of a step; give WORKDIR/nonfinite/STEP"):
    list(replay.replay(ended.workdir))


def test_skipped_steps_are_counted_in_the_metrics(ended):
  lines = [line for line in metrics.read(ended.workdir) if "skipped_steps" in line]
  assert [(line["step"], line["skipped_steps"]) for line in lines] == [(4, 3), (8, 7)]
  assert "train_loss" in lines[0]
  assert "train_loss" not in lines[1]
  for line in (ended.workdir / metrics.FILE).read_text().splitlines():
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
  assert "skipped step 2: the loss is not finite" in ended.said
