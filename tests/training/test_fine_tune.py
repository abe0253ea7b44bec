"""Starting from another run's checkpoint: its weights, its network, and a head where classes differ."""

import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax import tasks
from shufflenet_jax.training import fine_tune, preflight
from shufflenet_jax.training.loop import train
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import init_state

ONE = jax.devices()[:1]


def test_fine_tuning_takes_weights_and_picture_scaling_and_makes_a_new_head(run, config, tmp_path, capsys):
  mean = config.data.mean
  config.init_from = run.workdir
  config.model.groups, config.model.num_classes, config.data.mean = 1, 12, (0.0, 0.0, 0.0)
  started = preflight.prepare(config, str(tmp_path / "w"), ONE)
  assert config.model.groups == 3
  assert config.data.mean == mean
  said = capsys.readouterr().out
  assert "determines the network and the scaling of pictures; replaced in the config:" in said
  lines = {line.strip() for line in said.splitlines()}
  assert {"data.mean: [0.0, 0.0, 0.0] -> [127.5, 127.5, 127.5]", "model.groups: 1 -> 3"} <= lines
  assert not any(line.startswith(("model.num_classes:", "model.dtype:", "data.flip:")) for line in lines)
  assert (started.start_step, int(started.state.step)) == (0, 0)
  params, expected = dict(started.state.params), dict(run.state.params)
  head = params.pop("classifier")
  assert head["kernel"].shape[-1] == 12
  expected.pop("classifier")
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  jax.tree.map(np.testing.assert_array_equal, started.state.batch_stats, run.state.batch_stats)
  assert started.task.forward.model.num_classes == 12


@pytest.mark.parametrize(
  ("before", "now", "rows", "words"),
  [
    ("n01 dog|n02 cat|n03 newt|1", "n03|n09|1", {0: 2}, "old knows 1 of 3 classes by name: their rows of the last"),
    ("apple|grass|sky", "grass|sky|tomato", {0: 1, 1: 2}, "2 of 3 .* layer are kept, the others are initialised anew$"),
    ("apple|grass|sky", "sky|apple|grass", {0: 2, 1: 0, 2: 1}, "old knows all 3 classes .* are kept$"),
    ("fruit apple|fruit pear", "fruit grape|fruit plum", {}, "old knows none of the 2 classes by name: the last layer"),
    ("0|1|2", "0|1|2", {0: 0, 1: 1, 2: 2}, "the classes have no names, and old has as many: its last layer is kept"),
    ("0|1|2", "0|1", {}, "old knows none of the 2 classes"),
    ("0|1|2", "apple|grass|sky", {}, "old knows none of the 3 classes"),
    ("apple|1|2", "apple|grass|2", {0: 0}, "old knows 1 of 3 classes"),
  ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_classes_that_the_checkpoint_knows_by_name_keep_their_weights(config, bias, before, now, rows, words):
  """Whatever the numbers of classes on the two sides, and in whatever order."""
  config.model.classifier_bias = bias
  optimizer, _ = sgd(config.optimizer, 10)
  before, now = before.split("|"), now.split("|")
  rng = np.random.default_rng(0)

  def state(num_classes):
    """Of random numbers throughout: no bias is as it was by being zero."""
    config.model.num_classes = num_classes
    model, _ = tasks.network_for_images(config)
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, 32, 0))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)

  old, new = state(len(before)), state(len(now))
  variables = {"params": old.params, "batch_stats": old.batch_stats}
  pretrained = types.SimpleNamespace(path="old", config=config, class_names=before, restore_variables=lambda: variables)
  task = tasks.build(tasks.network(config), config)
  started = fine_tune.start_from(pretrained, new, task, now)
  for name, made in started.params["classifier"].items():
    kept, fresh = old.params["classifier"][name], new.params["classifier"][name]
    for i in range(len(now)):
      np.testing.assert_array_equal(made[..., i], kept[..., rows[i]] if i in rows else fresh[..., i])
  jax.tree.map(np.testing.assert_array_equal, started.params["stage2_unit1"], old.params["stage2_unit1"])
  assert re.search(words, fine_tune.describe(pretrained, task, now, len(now)))


def test_fine_tuning_goes_on_where_its_source_is_gone(run, config, tmp_path):
  shutil.copytree(run.workdir, tmp_path / "source")
  config.init_from = str(tmp_path / "source")
  train(config, str(tmp_path / "w"), ONE, stop_after_step=1)
  shutil.rmtree(tmp_path / "source")
  assert train(config, str(tmp_path / "w"), ONE, stop_after_step=2)[0].step == 2
