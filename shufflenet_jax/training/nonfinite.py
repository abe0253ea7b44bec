"""Losses and gradients that are not finite: noticed, counted, and dumped when there are too many."""

import collections
import io
import json

import jax
import numpy as np
from jax.experimental import multihost_utils

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import saver
from shufflenet_jax.errors import UserError

FOLDER = "nonfinite"  # in the work directory
SHOWN_IDS = 8


class Guard:
  """Checks each step's metrics once they are computed, and ends the run if too many steps were not finite.

  It does not undo such a step: `step.train_step` has already left the state unchanged.
  """

  def __init__(self, run):
    """`run`: a `preflight.Run`."""
    self._run, self._skipped = run, int(run.state.skipped)
    self._waiting = collections.deque()  # (step, batch on the devices, ids, metrics)

  def add(self, step: int, batch, ids: np.ndarray, metrics) -> None:
    """Adds a step that has been dispatched."""
    self._waiting.append((step, batch, ids, metrics))

  def check(self, state, keep: int = 0) -> None:
    """Waits for all steps added but the last `keep`, and checks them.

    Args:
      state: the result of the last step added.
      keep: how many steps may still be in flight.

    Raises:
      UserError: a step was skipped, and `max_skipped_steps` were skipped before it. The step is dumped.
    """
    limit = self._run.config.max_skipped_steps
    while len(self._waiting) > keep:
      step, batch, ids, metrics = self._waiting.popleft()
      skipped = int(metrics["skipped"])
      if skipped == self._skipped:
        continue
      values = jax.device_get(metrics)
      what = (
        f"step {step}: {'the loss is' if not np.isfinite(values['loss']) else 'gradients are'} not finite"
        f" (loss {values['loss']}, learning rate {values['learning_rate']:.4g})"
      )
      if skipped > limit:
        self._waiting.clear()
        folder = dump(self._run, step, state.replace(skipped=state.skipped * 0 + self._skipped), batch, ids)
        shown = ", ".join(map(str, ids[:SHOWN_IDS])) + (", ..." if len(ids) > SHOWN_IDS else "")
        raise UserError(
          f"{what}, on examples {shown}; the step changed nothing. To reproduce it: python -m shufflenet_jax.replay"
          f" --dump={folder}. To continue: a lower --config.optimizer.learning_rate, or"
          f" --config.max_skipped_steps={limit + 1} or more"
        )
      self._skipped = skipped
      self._run.say(f"  skipped {what}; {skipped} of at most {limit}")


def dump(run, step: int, state, batch, ids: np.ndarray) -> str:
  """Writes the state before a step, and the step's examples. Every process has to call this, and writes its examples.

  Args:
    run: a `preflight.Run`.
    step: the step that was not finite.
    state: a `TrainState` of `step - 1` steps.
    batch: the step's batch, on the devices.
    ids: the ids of this process's examples.

  Returns:
    The folder: a work directory, with an `examples.<process>.npz` for each process.
  """
  folder = storage.join(run.workdir, FOLDER, str(step))
  if run.process.index == 0:
    storage.remove_folder(folder)  # left by an earlier run with another config
  if run.process.count > 1:
    multihost_utils.sync_global_devices("dump")
  with saver.Saver(folder, keep=1) as saves:
    saves.save(step - 1, state, run.config, run.train_split.class_names, None, run.statistics_group)
  examples = io.BytesIO()
  np.savez(examples, id=ids, **{k: np.concatenate([s.data for s in _in_order(v)]) for k, v in batch.items()})
  storage.write_bytes(storage.join(folder, f"examples.{run.process.index}.npz"), examples.getvalue())
  if run.process.index == 0:
    values = {"step": step, "processes": run.process.count}
    storage.write_text(storage.join(folder, "step.json"), json.dumps(values) + "\n")
  return folder


def _in_order(array: jax.Array):
  """A process's shards of an array that is split along its first axis."""
  return sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
