"""Whole runs: reproducible, resumable, the same on any number of devices, evaluated from the checkpoint alone."""

import json

import jax
import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import UserError
from shufflenet_jax.training import evaluation, metrics
from shufflenet_jax.training.loop import train
from tests.streams import stream, write_photographs

ONE = jax.devices()[:1]


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_same_seed_gives_the_same_checkpoint(run, config, tmp_path):
  state, _ = train(config, str(tmp_path), ONE)
  assert_equal(state, run.state)


def test_stopped_and_resumed_equals_never_stopped(run, config, tmp_path):
  train(config, str(tmp_path), ONE, stop_after_step=7)
  state, _ = train(config, str(tmp_path), ONE)
  assert_equal(state, run.state)
  steps = [line["step"] for line in metrics.read(tmp_path) if "train_loss" in line]
  assert steps == sorted(set(steps))


def test_fewer_steps_than_are_done_are_refused(run, config):
  config.num_train_steps = 11
  with pytest.raises(UserError, match="is at step 12, beyond config.num_train_steps=11; raise that number, or name"):
    train(config, run.workdir, ONE)


def test_workdir_holds_what_it_promises(run, config):
  found = checkpoint.find(run.workdir)
  assert found.step == 12 == run.state.step
  assert found.config.to_dict() == config.to_dict()
  assert found.class_names == tuple("0123456789")
  assert_equal(found.restore_variables(), {"params": run.state.params, "batch_stats": run.state.batch_stats})
  with open(f"{run.workdir}/config.json") as f:
    assert json.load(f) == checkpoint.to_json(config)
  lines = metrics.read(run.workdir)
  assert {line["step"] for line in lines if "train_loss" in line} == {4, 8, 12}
  assert lines[-1]["eval_top1"] == run.figures["top1"]
  with open(f"{run.workdir}/curves.png", "rb") as f:
    assert f.read(8) == b"\x89PNG\r\n\x1a\n"


def test_evaluation_from_the_checkpoint_counts_the_same_on_1_and_4_devices(run, config):
  found = checkpoint.find(f"{run.workdir}/checkpoints/12")
  for devices in (ONE, jax.devices()):
    restored = evaluation.evaluate_checkpoint(found, found.config, devices=devices)
    assert restored["examples"] == 355
    assert (restored["top1"], restored["top5"]) == (run.figures["top1"], run.figures["top5"])
    assert restored["loss"] == pytest.approx(run.figures["loss"], rel=1e-5)


@pytest.fixture
def photographs(tmp_path, config):
  """48 + 4 of two classes."""
  return write_photographs(tmp_path / "photographs", config, train=48)


def test_what_was_trained_is_saved_where_a_picture_turns_out_bad(photographs, config, tmp_path):
  config.data.max_bad_train = 0
  third = stream(config, 3, config.batch_size)[2]
  label, number = divmod(int(third["id"][0]), 24)
  (photographs / "train" / ("ant", "bee")[label] / f"{2 * number + label:02d}.jpg").write_bytes(b"no picture")
  with pytest.raises(UserError, match="cannot be decoded"):
    train(config, str(tmp_path / "w"), ONE)
  assert checkpoint.find(str(tmp_path / "w")).step == 2


def test_a_run_does_not_go_on_with_other_classes(photographs, config, tmp_path):
  _, figures = train(config, str(tmp_path / "w"), ONE, stop_after_step=1)
  assert figures["examples"] == 4
  found = checkpoint.find(str(tmp_path / "w"))
  assert found.class_names[:3] == ("ant", "bee", "2")
  for split in ("train", "val"):
    (photographs / split / "ant").rename(photographs / split / "wasp")
  with pytest.raises(UserError, match="trained on other classes .*train has 'bee' in place of 'ant'.; choose another"):
    train(config, str(tmp_path / "w"), ONE)
  with pytest.raises(UserError, match="wasp is not a class of the checkpoint; its 10 classes have names like"):
    evaluation.evaluate_checkpoint(found, found.config)
