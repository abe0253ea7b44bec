"""Evaluation of a state on a whole split, every example exactly once."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.config import settings
from shufflenet_jax.data import opening
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import UserError
from shufflenet_jax.tasks.task import Task
from shufflenet_jax.training import prefetch
from shufflenet_jax.training.batches import Batches, for_evaluation
from shufflenet_jax.training.step import TrainState, compile_eval_step

COUNTS = ("examples", "bad_pictures")  # added to every task's own figures


def run(
  eval_fn, task: Task, state, split, batches: Batches, stop: Callable[[], bool] = lambda: False
) -> dict[str, float] | None:
  """The figures over a whole split.

  Args:
    eval_fn: a compiled `step.eval_step`.
    task: the task that the state was trained for.
    state: a `TrainState` on the devices.
    split: a `data.split.Split` or `data.arrays.arrays.Arrays`.
    batches: of that split, as `batches.for_evaluation` makes them.
    stop: called before each batch, and several times a second while one is late; when it returns True, the evaluation
      is given up.

  Returns:
    The task's figures, `examples`, and `bad_pictures`: how many could not be decoded and were left out. None if the
    evaluation was given up.

  Raises:
    UserError: no picture can be decoded, or the data cannot be read.
    RunFailed: the storage did not answer.
  """
  # The results stay on the devices until the end, so that no step waits for the one before.
  results = []
  with prefetch.Feed(batches.host(0), batches.to_devices) as feed:
    while (batch := feed.get(results[-1:], stop)) is not None:
      results.append(eval_fn(state, batch))
  if stop():
    return None
  sums = jax.device_get([sums for sums, _ in results])
  total = {k: sum(s[k].item() for s in sums) for k in sums[0]}
  rows = _all_rows([rows for _, rows in results])
  examples = total["examples"]
  if not examples:
    raise UserError(f"none of the {split.num_examples} pictures of {split.name} can be decoded")
  return task.figures(total, rows) | {"examples": examples, "bad_pictures": split.num_examples - examples}


def _all_rows(of_batches: list[dict[str, jax.Array]]) -> dict[str, np.ndarray]:
  """The rows of all batches and processes whose `mask` is True, without that mask; {} if the task has none."""
  if not of_batches[0].keys() - {"mask"}:
    return {}
  if jax.process_count() > 1:
    of_batches = multihost_utils.process_allgather(of_batches, tiled=True)
  of_batches = jax.device_get(of_batches)
  masks = [rows.pop("mask") for rows in of_batches]
  return {k: np.concatenate([rows[k][mask] for rows, mask in zip(of_batches, masks)]) for k in of_batches[0]}


def describe(task: Task, figures: dict[str, float]) -> str:
  """One line: `top-1 97.50 %, top-5 99.90 %, loss 0.1234 on 355 examples`."""
  own = {k: v for k, v in figures.items() if k not in COUNTS}
  bad = f", {figures['bad_pictures']:,} could not be decoded" if figures["bad_pictures"] else ""
  return f"{task.describe(own)} on {figures['examples']:,} examples{bad}"


def evaluate_checkpoint(
  source: checkpoint.Checkpoint, config, folder: str | None = None, devices=None, say: Callable = print
) -> dict[str, float]:
  """Evaluates a checkpoint and describes the result in one line.

  Args:
    source: the checkpoint.
    config: its own config, or one with other data.
    folder: a folder of images by class to evaluate on, instead of the config's data.
    devices: JAX devices, all by default.
    say: prints notes on the data, and the result.

  Returns:
    The figures as `run` returns them, and the `step`.

  Raises:
    UserError: a field is out of range, the task or the network is another one, or the data do not fit it or cannot be
      read.
  """
  tasks.check_same_task(source.path, source.config, config, "what it was trained for cannot be overridden")
  settings.check(config, training=False)
  model_before, model_now = (checkpoint.to_json(c.model) for c in (source.config, config))
  settings.check_same_network(str(source.path), model_before, model_now, "its network cannot be overridden")
  model, _ = tasks.network_for_images(config)
  task = tasks.build(model, config)
  data_mesh = mesh.data_mesh(devices)
  mesh.check_batch_size("config.eval_batch_size", config.eval_batch_size, data_mesh.size)
  if folder is not None and task.examples != "labels":
    raise UserError(
      f"--data={folder} is a folder of classes, {source.path} is a detector; give --config.data.name of a dataset with"
      " boxes"
    )
  if folder is None:
    split = opening.open_split(config, config.data.eval_split, task.examples, source.class_names)
  else:
    from shufflenet_jax.data.sources import folder as folder_source  # which imports TensorFlow

    split = folder_source.open_folder(folder, source.class_names)
  if split.note:
    say(split.note)
  variables = mesh.replicate(source.restore_variables(), data_mesh)
  state = TrainState(source.step, 0, variables["params"], variables["batch_stats"], opt_state=())
  batches = for_evaluation(split, config, task, data_mesh)
  figures = run(compile_eval_step(data_mesh, task=task), task, state, split, batches)
  say(describe(task, figures))
  return figures | {"step": source.step}
