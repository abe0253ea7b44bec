"""Losses and gradients that are not finite: noticed, counted, and dumped where there are too many."""

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
  """Looks at each step's figures once they are there; `train_step.train_step` itself has kept the state as it was."""

  def __init__(self, run):
    """`run`: a `start.Run`."""
    self._run, self._skipped = run, int(run.state.skipped)
    self._waiting = collections.deque()  # (step, batch on the devices, ids, figures)

  def add(self, step: int, batch, ids: np.ndarray, figures) -> None:
    """A step that has been dispatched."""
    self._waiting.append((step, batch, ids, figures))

  def check(self, state, keep: int = 0) -> None:
    """Waits for the steps added, but for the last `keep`.

    Args:
      state: what the last of them gave.
      keep: how many need not be done yet.

    Raises:
      UserError: one was skipped, and as many were before as may be. The step is dumped.
    """
    limit = self._run.config.max_skipped_steps
    while len(self._waiting) > keep:
      step, batch, ids, figures = self._waiting.popleft()
      skipped = int(figures["skipped"])
      if skipped == self._skipped:
        continue
      values = jax.device_get(figures)
      what = (
        f"step {step}: {'the loss is' if not np.isfinite(values['loss']) else 'gradients are'} not finite"
        f" (loss {values['loss']}, learning rate {values['learning_rate']:.4g})"
      )
      if skipped > limit:
        self._waiting.clear()
        folder = dump(self._run, step, state.replace(skipped=state.skipped * 0 + self._skipped), batch, ids)
        shown = ", ".join(map(str, ids[:SHOWN_IDS])) + (", ..." if len(ids) > SHOWN_IDS else "")
        raise UserError(
          f"{what}, on examples {shown}; nothing of it was kept. See it again: python -m shufflenet_jax.replay"
          f" --dump={folder}; go on: a lower --config.optimizer.learning_rate, or"
          f" --config.max_skipped_steps={limit + 1} or more"
        )
      self._skipped = skipped
      self._run.say(f"  skipped {what}; {skipped} of {limit} that may be")


def dump(run, step: int, state, batch, ids: np.ndarray) -> str:
  """Writes the state ahead of a step and the step's examples, each process its own; all processes have to take part.

  Args:
    run: a `start.Run`.
    step: the step that went wrong.
    state: a `TrainState` of `step - 1` steps.
    batch: the step's, on the devices.
    ids: of this process's examples.

  Returns:
    The folder, a work directory with `examples.<process>.npz` beside.
  """
  folder = storage.join(run.workdir, FOLDER, str(step))
  if run.process[0] == 0:
    storage.remove_folder(folder)  # of an earlier try, with another config
  if run.process[1] > 1:
    multihost_utils.sync_global_devices("dump")
  with saver.Saver(folder, keep=1) as saves:
    saves.save(step - 1, state, run.config, run.train_split.class_names, None, run.group)
  examples = io.BytesIO()
  np.savez(examples, id=ids, **{k: np.concatenate([s.data for s in _in_order(v)]) for k, v in batch.items()})
  storage.write_bytes(storage.join(folder, f"examples.{run.process[0]}.npz"), examples.getvalue())
  if run.process[0] == 0:
    values = {"step": step, "processes": run.process[1]}
    storage.write_text(storage.join(folder, "step.json"), json.dumps(values) + "\n")
  return folder


def _in_order(array: jax.Array):
  """A process's shards of an array that is split along its first axis."""
  return sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
