"""Checkpoints that several tests start from."""

import jax
import numpy as np

from configs import quickstart
from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint, saver
from shufflenet_jax.training import metrics
from shufflenet_jax.training.loop import train
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import init_state


def of_random_weights(folder, class_names) -> str:
  """Writes a small network of random weights as a new work directory; returns its checkpoint's path."""
  config = quickstart.get_config()
  config.model.scale, config.model.repeats = 0.25, (1, 1, 1)
  model, _ = tasks.network_for_images(config)
  optimizer, _ = sgd(config.optimizer, 10)
  state = init_state(model, optimizer, 32, 0)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  return saver.write_variables(folder, variables, config, class_names)


def assert_stopped_at_6_and_resumes(config, workdir: str, expected, figures) -> None:
  """That `workdir` was stopped at step 6 of 12, its evaluation owed, and ends as an undisturbed run did.

  Args:
    config: of both runs.
    workdir: the one that was stopped.
    expected: final state of the undisturbed one.
    figures: its last evaluation's.
  """
  assert checkpoint.find(workdir).step == 6
  assert not [line for line in metrics.read(workdir) if "eval_top1" in line]
  state, resumed_figures = train(config, workdir, jax.devices()[:1])
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert resumed_figures == figures
  assert [line["step"] for line in metrics.read(workdir) if "eval_top1" in line] == [6, 12]
