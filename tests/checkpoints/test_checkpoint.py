"""Checkpoints: found by what they hold, refused where they do not fit, and which of them stay."""

import shutil

import jax
import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint, saver
from shufflenet_jax.errors import UserError
from shufflenet_jax.training import evaluation
from shufflenet_jax.training.loop import train

ONE = jax.devices()[:1]


def test_another_architecture_in_the_workdir_is_refused(run, config):
  config.model.groups = 2
  with pytest.raises(UserError, match=r"another network \(model.groups: 3 -> 2\); choose another --workdir"):
    train(config, run.workdir, ONE)
  assert checkpoint.find(run.workdir).config.model.groups == 3


@pytest.mark.parametrize("make", [lambda p: p / "absent", lambda p: p])
def test_a_path_that_is_no_checkpoint(tmp_path, make):
  with pytest.raises(UserError, match="(does not exist|is neither a work directory nor a checkpoint); give a WORKDIR"):
    checkpoint.find(str(make(tmp_path)))


def test_a_checkpoint_is_known_by_what_it_holds_not_by_its_name(run, tmp_path):
  shutil.copytree(f"{run.workdir}/checkpoints/12", tmp_path / "digits_v1")
  found = checkpoint.find(str(tmp_path / "digits_v1"))
  assert found.step == 12
  jax.tree.map(np.testing.assert_array_equal, found.restore_variables()["params"], run.state.params)


def test_a_damaged_checkpoint_says_so(run, tmp_path):
  copy = tmp_path / "damaged"
  shutil.copytree(f"{run.workdir}/checkpoints/12", copy)
  for path in (copy / "state").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(UserError, match="cannot be read .* use an earlier one"):
    checkpoint.find(str(copy)).restore_variables()


def test_newest_and_best_checkpoints_stay(config, tmp_path):
  """Top-1 falls after step 2, so that the best is none of the newest."""
  config.keep_checkpoints = 2
  saved = ((1, 0.2), (2, 0.9), (3, 0.5), (4, None), (5, 0.4), (6, None))
  for part in (saved[:4], saved[4:]):  # stopped and resumed between
    with saver.Saver(str(tmp_path), config.keep_checkpoints, best="top1") as saves:
      for step, top1 in part:
        saves.save(step, {"params": {"w": np.ones(2)}}, config, ["a"], None if top1 is None else {"top1": top1})
  assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6]


def test_overriding_the_network_of_a_checkpoint_is_refused(run, config):
  found = checkpoint.find(run.workdir)
  config.model.groups = 2
  with pytest.raises(UserError, match=r"another network \(model.groups: 3 -> 2\); its network cannot be overridden"):
    evaluation.evaluate_checkpoint(found, config)


@pytest.mark.parametrize(
  ("figures", "larger_is_better", "expected"),
  [
    ({1: 0.2, 2: 0.9, 3: 0.5, 4: 0.4}, True, [1, 3]),
    ({1: 0.2, 2: 0.9, 3: 0.5, 4: 0.4}, False, [2, 3]),
    ({1: 0.9, 2: 0.9, 3: None, 4: None}, True, [1, 3]),  # the later of equals
    ({1: 0.9, 2: 0.9, 3: None, 4: None}, False, [1, 3]),
    ({1: float("nan"), 2: None, 3: None, 4: 0.1}, False, [1, 2, 3]),
    ({1: 0.9}, True, []),
  ],
)
def test_all_but_the_newest_and_the_best_are_superseded(figures, larger_is_better, expected):
  assert saver.superseded(figures, 1, larger_is_better) == expected
