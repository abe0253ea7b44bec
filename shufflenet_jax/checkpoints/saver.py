"""Saving checkpoints in the background, and which of them are kept."""

import contextlib
import math
import time
from concurrent import futures
from typing import Any

import jax
import numpy as np

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import checkpoint, integrity, orbax_files
from shufflenet_jax.errors import CommandEnded, RunFailed, UserError


class AnotherRun(RunFailed):
  """Another process saves checkpoints in the same work directory."""


class Saver:
  """Saves checkpoints of a run in a background thread. As a context manager, it waits for the last save at the end.

  Keeps the newest ones and, of those evaluated, the best one. An older one is removed only when a newer one is whole.
  With several processes only the first one writes, because the state is the same on all.

  Attributes:
    blocked_seconds: how long the caller has waited for saves, in total.
    saves: how many saves there were.
  """

  def __init__(self, workdir: str, keep: int, best: str | None = None, larger_is_better: bool = True):
    """
    Args:
      workdir: where `checkpoints/` is, or will be.
      keep: how many of the newest checkpoints to keep.
      best: name of the figure by which evaluated checkpoints are compared; None keeps the newest ones only.
      larger_is_better: whether a larger value of that figure is the better one.
    """
    self._folder = storage.join(storage.normalize(workdir), checkpoint.FOLDER)
    self._keep, self._best, self._larger_is_better = keep, best, larger_is_better
    self._thread = futures.ThreadPoolExecutor(1)
    self._pending: futures.Future | None = None
    self._step = self._written = None
    self._figure: dict[int, float | None] | None = None  # step -> its checkpoint's figure; None until the first save
    self.blocked_seconds, self.saves = 0.0, 0

  def save(
    self, step: int, state, config, class_names, metrics: dict | None, statistics_group: int | None = None
  ) -> None:
    """Begins to save; the state may change afterwards.

    Args:
      step: of the state; it becomes the directory's name.
      state: a `TrainState`, or a dict of `params` and `batch_stats`.
      config: the whole config.
      class_names: in label order.
      metrics: figures of an evaluation at this step, or None.
      statistics_group: how many images batch norm saw together.

    Raises:
      UserError, RunFailed: the previous save failed.
    """
    began = time.perf_counter()
    self.wait()
    self.saves += 1
    if jax.process_index() == 0:
      on_host = jax.tree.map(np.array, state)  # a copy: the next step reuses the devices' memory
      description = _description(step, config, class_names, metrics, statistics_group)
      self._step, self._pending = step, self._thread.submit(self._save, step, on_host, description)
    self.blocked_seconds += time.perf_counter() - began

  def check(self) -> None:
    """Raises a UserError or RunFailed if the save in progress has failed."""
    if self._pending and self._pending.done():
      self.wait()

  def wait(self) -> None:
    """Waits for the save in progress; raises as `check` does."""
    pending, self._pending = self._pending, None
    try:
      if pending:
        pending.result()
    except AnotherRun:
      raise
    except Exception as error:  # Orbax raises whatever its layers raise
      kind = UserError if isinstance(error, UserError) else RunFailed
      what = f"the checkpoint of step {self._step} cannot be written to {self._folder}"
      if self._step == self._written:
        what, rest = f"an old checkpoint cannot be removed from {self._folder}", f"that of step {self._step} is saved"
      elif self._figure is None:
        rest = "earlier ones, if there are any, are unchanged"
      elif self._figure:
        rest = f"the newest one is of step {max(self._figure)}, from which the same command continues"
      else:
        rest = "there is no earlier one"
      raise kind(f"{what} ({checkpoint.short(error)}); {rest}") from error

  def _save(self, step: int, state, description: dict) -> None:
    if self._figure is None:
      steps = checkpoint.steps_in(storage.parent(self._folder))
      self._figure = {
        s: self._figure_of(found.metrics if (found := checkpoint.read(path)) else None) for s, path in steps
      }
    path = storage.join(self._folder, str(step))
    if step in self._figure:
      raise AnotherRun(
        f"{path} already exists: another run is training in the same work directory; end one of them, and the same"
        " command continues"
      )
    write(path, state, description)
    self._written = step
    self._figure[step] = self._figure_of(description["metrics"])
    for old in superseded(self._figure, self._keep, self._larger_is_better):
      storage.remove_folder(storage.join(self._folder, str(old)), marker=checkpoint.DESCRIPTION)
      del self._figure[old]

  def _figure_of(self, metrics: dict | None) -> float | None:
    return (metrics or {}).get(self._best)

  def __enter__(self):
    return self

  def __exit__(self, kind, *exception):
    try:
      # If the block failed, its error is the one to report.
      with contextlib.suppress(CommandEnded) if kind else contextlib.nullcontext():
        self.wait()
    finally:
      self._thread.shutdown()


def superseded(figure: dict[int, float | None], keep: int, larger_is_better: bool = True) -> list[int]:
  """The steps whose checkpoints may be removed: all but the newest `keep` and the best one (the latest of equals).

  Args:
    figure: of the evaluation at each step that has a checkpoint; None if there was none. NaN is never the best.
    keep: 1 or more.
    larger_is_better: whether a larger figure is the better one.
  """
  sign = 1 if larger_is_better else -1
  evaluated = {step: sign * value for step, value in figure.items() if value is not None and not math.isnan(value)}
  best = max(evaluated, key=lambda step: (evaluated[step], step), default=None)
  return [step for step in sorted(figure)[:-keep] if step != best]


def _description(step: int, config, class_names, metrics: dict | None, statistics_group: int | None) -> dict:
  """What `checkpoint.read` returns, as JSON values, without the digests."""
  return {
    "step": step,
    "config": checkpoint.to_json(config),
    "class_names": list(class_names),
    "group": statistics_group,
    "metrics": metrics,
  }


def write(path: str, state, description: dict) -> None:
  """Writes a checkpoint's directory, whole or not at all.

  Args:
    path: of the directory, as `storage.normalize` returns it.
    state: a tree of arrays on the host.
    description: as `_description` returns it; digests of it and of the arrays are added.

  Raises:
    Refused, Unavailable: as `storage` raises them; or whatever Orbax raises.
  """
  description = integrity.seal(description | {"digest": integrity.digest_of_arrays(integrity.arrays_by_name(state))})
  with storage.new_folder(path, marker=checkpoint.DESCRIPTION) as folder:
    try:
      orbax_files.write(folder, state, description)
    except Exception:
      # Orbax reports a full disk only in the text of an error. Writing as much again shows whether the disk is full.
      storage.check_writable(storage.parent(folder), sum(x.nbytes for x in jax.tree.leaves(state)))
      raise


def write_variables(workdir: str, variables: dict[str, Any], config, class_names) -> str:
  """Writes `params` and `batch_stats` as step 0 of a new work directory, whole or not at all.

  Args:
    workdir: absent, or empty.
    variables: the two collections.
    config: the config that `checkpoint.find` is to return.
    class_names: in label order.

  Returns:
    The checkpoint's path.

  Raises:
    as `write` does; nothing is left behind.
  """
  workdir = storage.normalize(workdir)
  path = storage.join(workdir, checkpoint.FOLDER, "0")
  try:
    write(
      path, jax.tree.map(np.array, variables), _description(0, config, class_names, metrics=None, statistics_group=None)
    )
    checkpoint.write_config(workdir, config)
  except BaseException:
    with contextlib.suppress(storage.StorageError):
      storage.remove_folder(workdir)
    raise
  return path
