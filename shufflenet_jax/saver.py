"""Saving checkpoints in the background, and which of them are kept."""

import contextlib
import math
import time
from concurrent import futures
from typing import Any

import jax
import numpy as np

from shufflenet_jax import checkpoint, integrity, orbax_files, storage
from shufflenet_jax.errors import RunFailed, UserError


class AnotherRun(RunFailed):
  """Another process saves checkpoints in the same work directory."""


class Saver:
  """Saves checkpoints of a run in a background thread; a context manager whose end waits for the last one.

  Keeps the newest ones and, of those evaluated, the one with the best top-1. An older one is removed only when a newer
  one is whole. Of several processes the first one writes: the state is the same on all.

  Attributes:
    blocked_seconds: how long the saves have kept the caller, altogether.
    saves: how many there were.
  """

  def __init__(self, workdir: str, keep: int):
    """`keep`: how many of the newest."""
    self._folder = storage.join(storage.normalize(workdir), checkpoint.FOLDER)
    self._keep = keep
    self._thread = futures.ThreadPoolExecutor(1)
    self._pending: futures.Future | None = None
    self._step = self._written = None
    self._top1: dict[int, float | None] | None = None  # of each step's checkpoint; None until one is needed
    self.blocked_seconds, self.saves = 0.0, 0

  def save(self, step: int, state, config, class_names, metrics: dict | None, group: int | None = None) -> None:
    """Begins to save; the state may change afterwards.

    Args:
      step: of the state, and in the directory's name.
      state: a `TrainState`, or a dict of `params` and `batch_stats`.
      config: the whole config.
      class_names: in label order.
      metrics: of an evaluation at this step, with `top1`; or None.
      group: how many images batch norm saw together.

    Raises:
      UserError, RunFailed: the save before failed.
    """
    began = time.perf_counter()
    self.wait()
    self.saves += 1
    if jax.process_index() == 0:
      on_host = jax.tree.map(np.array, state)  # a copy: the next step reuses the devices' memory
      description = _description(step, config, class_names, metrics, group)
      self._step, self._pending = step, self._thread.submit(self._save, step, on_host, description)
    self.blocked_seconds += time.perf_counter() - began

  def check(self) -> None:
    """Raises a UserError or RunFailed where the save under way has failed."""
    if self._pending and self._pending.done():
      self.wait()

  def wait(self) -> None:
    """Waits for the save under way; raises as `check` does."""
    pending, self._pending = self._pending, None
    try:
      if pending:
        pending.result()
    except AnotherRun:
      raise
    except Exception as error:  # Orbax raises whatever its layers meet
      kind = UserError if isinstance(error, UserError) and not isinstance(error, RunFailed) else RunFailed
      what = f"the checkpoint of step {self._step} cannot be written to {self._folder}"
      if self._step == self._written:
        what, rest = f"an old checkpoint cannot be removed from {self._folder}", f"that of step {self._step} is saved"
      elif self._top1 is None:
        rest = "those before it, if there are any, are as they were"
      elif self._top1:
        rest = f"the newest one is of step {max(self._top1)}, from which the same command continues"
      else:
        rest = "there is none before it"
      raise kind(f"{what} ({checkpoint.short(error)}); {rest}") from error

  def _save(self, step: int, state, description: dict) -> None:
    if self._top1 is None:
      self._top1 = {s: _top1(checkpoint.read(path)) for s, path in checkpoint.steps_in(storage.parent(self._folder))}
    path = storage.join(self._folder, str(step))
    if step in self._top1:
      raise AnotherRun(
        f"{path} is there already: another run trains in the same work directory; end one of them, and the same command"
        " continues"
      )
    write(path, state, description)
    self._written = step
    self._top1[step] = (description["metrics"] or {}).get("top1")
    for old in superseded(self._top1, self._keep):
      storage.remove_folder(storage.join(self._folder, str(old)), marker=checkpoint.DESCRIPTION)
      del self._top1[old]

  def __enter__(self):
    return self

  def __exit__(self, kind, *exception):
    try:
      with contextlib.suppress(UserError) if kind else contextlib.nullcontext():  # the first error is the one to report
        self.wait()
    finally:
      self._thread.shutdown()


def _top1(found: "checkpoint.Checkpoint | None") -> float | None:
  return (found.metrics or {}).get("top1") if found else None


def superseded(top1: dict[int, float | None], keep: int) -> list[int]:
  """The steps whose checkpoints may go: neither among the newest `keep` nor the best evaluated one (the latest such).

  Args:
    top1: of the evaluation at each step that has a checkpoint; None or NaN where there was none.
    keep: 1 or more.
  """
  evaluated = {step: value for step, value in top1.items() if value is not None and not math.isnan(value)}
  best = max(evaluated, key=lambda step: (evaluated[step], step), default=None)
  return [step for step in sorted(top1)[:-keep] if step != best]


def _description(step: int, config, class_names, metrics: dict | None, group: int | None) -> dict:
  """What `checkpoint.read` returns, as JSON values, but for the digests."""
  return {
    "step": step,
    "config": checkpoint.to_json(config),
    "class_names": list(class_names),
    "group": group,
    "metrics": metrics,
  }


def write(path: str, state, description: dict) -> None:
  """Writes a checkpoint's directory, whole or not at all.

  Args:
    path: of the directory, as `storage.normalize` returns it.
    state: a tree of arrays on the host.
    description: as `_description` returns it; digests of it and of the arrays are added.

  Raises:
    Refused, Unavailable: as `storage` raises them; or whatever Orbax meets.
  """
  description = integrity.seal(description | {"digest": integrity.digest_of_arrays(integrity.arrays_by_name(state))})
  with storage.new_folder(path, marker=checkpoint.DESCRIPTION) as folder:
    try:
      orbax_files.write(folder, state, description)
    except Exception:
      # Orbax's layers report a full disk by a text: see by writing as much again whether it is the disk.
      storage.check_writable(storage.parent(folder), sum(x.nbytes for x in jax.tree.leaves(state)))
      raise


def write_variables(workdir: str, variables: dict[str, Any], config, class_names) -> str:
  """Writes `params` and `batch_stats` as step 0 of a new work directory, whole or not at all.

  Args:
    workdir: absent, or empty.
    variables: the two collections.
    config: what `checkpoint.find` is to return.
    class_names: in label order.

  Returns:
    The checkpoint's path.

  Raises:
    as `write` does; nothing is left then.
  """
  workdir = storage.normalize(workdir)
  path = storage.join(workdir, checkpoint.FOLDER, "0")
  try:
    write(path, jax.tree.map(np.array, variables), _description(0, config, class_names, metrics=None, group=None))
    checkpoint.write_config(workdir, config)
  except BaseException:
    with contextlib.suppress(UserError):
      storage.remove_folder(workdir)
    raise
  return path
