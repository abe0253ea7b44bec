"""A second task is a class and a row in `tasks.TASKS`; nothing else knows of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.prediction.predictor import Predictor
from shufflenet_jax.prediction.report import report
from shufflenet_jax.tasks.task import Task
from shufflenet_jax.tpu.compile import lower_step
from shufflenet_jax.training import evaluation, metrics
from shufflenet_jax.training.loop import train
from tests.pictures import picture

ONE = jax.devices()[:1]


@dataclasses.dataclass(frozen=True)
class Brightness(Task):
  """Estimates the mean brightness of an image, from 0 to 1, by the mean of the network's outputs."""

  def loss(self, params, batch_stats, batch, keys):
    outputs, batch_stats = self.forward.train(params, batch_stats, batch["image"], keys[0])
    loss = self._errors(outputs, batch["image"]).mean()
    return loss, batch_stats, {"loss": loss}

  def sums(self, params, batch_stats, batch):
    outputs = self.forward({"params": params, "batch_stats": batch_stats}, batch["image"])
    return {"loss": jnp.where(batch["mask"], self._errors(outputs, batch["image"]), 0).sum()}

  def _errors(self, outputs, images):
    return jnp.square(outputs.mean(-1) - images.astype(jnp.float32).mean((1, 2, 3)) / 255)


@pytest.fixture
def of_brightness(config, monkeypatch):
  monkeypatch.setitem(tasks.TASKS, "brightness", Brightness)
  config.task = "brightness"
  config.optimizer.learning_rate = 0.01
  return config


def test_another_task_trains_resumes_evaluates_and_logs(of_brightness, tmp_path, capsys):
  whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
  expected, figures = train(of_brightness, whole, ONE)
  train(of_brightness, stopped, ONE, stop_after_step=7)
  state, resumed_figures = train(of_brightness, stopped, ONE)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert resumed_figures == figures
  assert figures.keys() == {"loss", "examples", "bad_pictures"}
  out = capsys.readouterr().out
  assert f"evaluation at step 12: loss {figures['loss']:.4f} on 355 examples" in out
  assert "accuracy" not in out
  lines = metrics.read(whole)
  assert [line["step"] for line in lines if "train_loss" in line] == [4, 8, 12]
  assert [line["eval_loss"] for line in lines if "eval_loss" in line][-1] == figures["loss"]
  assert not any("top1" in name or "accuracy" in name for line in lines for name in line)
  source = checkpoint.find(whole)
  assert source.config.task == "brightness"
  again = evaluation.evaluate_checkpoint(source, source.config, devices=ONE)
  assert again == figures | {"step": 12}


def test_its_best_checkpoint_is_the_one_of_its_smallest_loss(of_brightness, tmp_path):
  of_brightness.keep_checkpoints, of_brightness.eval_every_steps = 1, 1
  train(of_brightness, str(tmp_path), ONE)
  losses = {line["step"]: line["eval_loss"] for line in metrics.read(tmp_path) if "eval_loss" in line}
  assert len(losses) == 12
  kept = {step for step, _ in checkpoint.steps_in(str(tmp_path))}
  assert kept == {12, min(losses, key=losses.get)}


def test_its_predictions_are_what_the_task_answers(of_brightness, tmp_path, capsys):
  train(of_brightness, str(tmp_path / "w"), ONE, stop_after_step=1)
  (tmp_path / "a.jpg").write_bytes(picture())
  predictor = Predictor(checkpoint.find(str(tmp_path / "w")))
  capsys.readouterr()
  assert report(predictor, [str(tmp_path / "a.jpg")], as_json=True) == 0
  answer = json.loads(capsys.readouterr().out)
  assert answer.keys() == {"image", "output"}
  assert np.shape(answer["output"]) == (10,)


def test_its_steps_are_lowered_without_labels(of_brightness):
  model = build.network(of_brightness.model)
  (_, batch), _ = lower_step(model, of_brightness, ONE, "train").stage.args_info
  assert batch.keys() == {"image"}
  assert lower_step(model, of_brightness, ONE, "infer").stage.out_info.shape == (16, 10)


def test_a_workdir_of_another_task_is_refused(run, of_brightness):
  with pytest.raises(UserError, match=r"another task \(classification -> brightness\); choose another --workdir"):
    train(of_brightness, run.workdir, ONE)


def test_a_checkpoint_of_another_task_is_not_evaluated(run, of_brightness):
  with pytest.raises(UserError, match=r"another task \(classification -> brightness\); what it was trained for cannot"):
    evaluation.evaluate_checkpoint(checkpoint.find(run.workdir), of_brightness, devices=ONE)


def test_fine_tuning_for_another_task_starts_its_head_anew(run, of_brightness, tmp_path, capsys):
  of_brightness.init_from, of_brightness.optimizer.learning_rate = run.workdir, 1e-9
  state, _ = train(of_brightness, str(tmp_path), ONE, stop_after_step=1)
  assert "is of another task (classification): classifier starts from new weights" in capsys.readouterr().out
  before = checkpoint.find(run.workdir).restore_variables()["params"]
  assert not np.allclose(state.params["classifier"]["kernel"], before["classifier"]["kernel"], atol=1e-3)
  np.testing.assert_allclose(state.params["stem"]["kernel"], before["stem"]["kernel"], atol=1e-6)


def test_a_task_that_does_not_exist_is_named(config, tmp_path):
  config.task = "detectoin"
  with pytest.raises(UserError, match="config.task='detectoin' is not one of classification"):
    train(config, str(tmp_path / "w"), ONE)
  assert not (tmp_path / "w").exists()


def test_a_config_without_the_field_classifies(config):
  if "task" in config:
    del config["task"]
  assert tasks.class_of(config) is tasks.TASKS["classification"]
