"""Work directories of earlier versions: tests/workdirs/07e64a2, and the same with fields that were declared later."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint, integrity
from shufflenet_jax.data import export
from shufflenet_jax.errors import UserError
from shufflenet_jax.prediction.predictor import Predictor
from shufflenet_jax.training import evaluation
from shufflenet_jax.training.loop import train
from tests.conftest import small_config
from tests.workdirs import make

DESCRIPTION = "checkpoints/4/description/metadata"
# A field of each section, and one of the network: as if they had been declared after the checkpoint was written.
MISSING = (("max_skipped_steps",), ("model", "se"), ("data", "color_jitter"), ("optimizer", "label_smoothing"))
ONE = jax.devices()[:1]


def remove_fields(workdir, fields, **model) -> None:
  """Removes fields from the config that a checkpoint holds, sets fields of its model, and renews its digest."""
  path = workdir / DESCRIPTION
  description = json.loads(path.read_text())
  for *sections, field in fields:
    section = description["config"]
    for name in sections:
      section = section[name]
    del section[field]
  description["config"]["model"] |= model
  del description["seal"]
  path.write_text(json.dumps(integrity.seal(description)))


@pytest.fixture(params=[(), MISSING], ids=["as it was written", "without fields declared later"])
def workdir(request, tmp_path):
  """A copy of the old work directory, stopped at step 4 of 4."""
  folder = tmp_path / "old"
  shutil.copytree(make.FOLDER, folder)
  remove_fields(folder, request.param)
  return folder


@pytest.fixture
def old_config(workdir, data_dir):
  """The config of the old run, with its data where this session has them."""
  config = checkpoint.find(str(workdir)).config
  config.data.data_dir = data_dir
  return config


def test_missing_fields_get_their_defaults(workdir, old_config):
  assert old_config.max_skipped_steps == 0
  assert old_config.model.se is False
  assert old_config.data.color_jitter == 0.0
  assert old_config.optimizer.label_smoothing in (0.1, 0.0)  # as written, or the default


def test_resumes(workdir, old_config):
  old_config.num_train_steps = 6
  state, figures = train(old_config, str(workdir), ONE)
  assert state.step == 6
  assert figures["examples"] == 355
  assert checkpoint.find(str(workdir)).step == 6


def test_evaluates_to_the_figures_of_the_old_version(workdir, old_config):
  found = checkpoint.find(str(workdir))
  figures = evaluation.evaluate_checkpoint(found, old_config, devices=ONE)
  assert figures["top1"] == pytest.approx(found.metrics["top1"])
  assert figures["loss"] == pytest.approx(found.metrics["loss"], rel=1e-5)


def test_predicts(workdir, old_config, tmp_path):
  [path] = export.export(old_config, 1, str(tmp_path / "pictures"))
  with open(path, "rb") as file:
    answers = Predictor(checkpoint.find(str(workdir)))(file.read())
  assert len(answers) == 5
  assert sum(probability for _, probability in answers) <= 1


def test_fine_tunes(workdir, data_dir, tmp_path):
  config = small_config(data_dir)
  config.init_from = str(workdir)
  pretrained = checkpoint.find(str(workdir)).restore_variables()["params"]
  config.optimizer.learning_rate = 1e-30  # leaves the weights where they begin
  state, _ = train(config, str(tmp_path / "tuned"), ONE, stop_after_step=1)
  assert state.step == 1
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), state.params, pretrained)


def test_a_formulation_that_was_replaced_is_known(workdir):
  remove_fields(workdir, (), lowering="split")
  assert checkpoint.find(str(workdir)).config.model.lowering == "planes"


def test_a_checkpoint_with_another_order_of_channels_is_refused(tmp_path):
  shutil.copytree(make.FOLDER, tmp_path / "old")
  remove_fields(tmp_path / "old", [("model", "lowering")])
  with pytest.raises(UserError, match="another order of channels"):
    checkpoint.find(str(tmp_path / "old"))
