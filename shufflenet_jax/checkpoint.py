"""Orbax checkpoints. `WORKDIR/checkpoints/<step>/` holds a `state` and a `description` (config, class names, digests):
one such directory alone is enough to evaluate and predict."""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from shufflenet_jax import integrity
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.integrity import Damaged

_policy = ocp.checkpoint_managers


class Saver:
  """Saves checkpoints of a run in the background; a context manager whose end waits for the last one.

  Keeps the newest ones and, of those evaluated, the one with the best top-1. An
  older one goes only when a newer one is whole.

  Attributes:
    blocked_seconds: how long the saves have kept the caller, altogether.
    saves: how many there were.
  """

  def __init__(self, workdir: str, keep: int):
    """`keep`: how many of the newest."""

    def top1(figures):
      return figures["top1"]

    _quieten_orphans()
    policy = _policy.AnyPreservationPolicy(
      [_policy.LatestN(keep), _policy.BestN(get_metric_fn=top1, n=1, keep_checkpoints_without_metrics=False)]
    )
    # best_fn has the metrics written, too: a run that goes on has to know which was best.
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=top1)
    self._manager = ocp.CheckpointManager(epath.Path(workdir).absolute() / "checkpoints", options=options)
    self._step = None
    self.blocked_seconds, self.saves = 0.0, 0

  def save(self, step: int, state, config, class_names, metrics: dict | None, group: int | None = None) -> None:
    """Begins to save; raises a UserError where this or the last save fails.

    Args:
      step: of the state, and in the directory's name.
      state: a `TrainState`, or a dict of `params` and `batch_stats`.
      config: the whole config.
      class_names: in label order.
      metrics: of an evaluation at this step, with `top1`; or None.
      group: how many images batch norm saw together.
    """
    began = time.perf_counter()
    with self._explained():
      self._manager.wait_until_finished()
    self._step = step
    description = integrity.seal(
      {
        "step": step,
        "config": to_json(config),
        "class_names": list(class_names),
        "group": group,
        "metrics": metrics,
        "digest": integrity.digest_of_arrays(integrity.arrays_by_name(state)),
      }
    )
    items = {"state": ocp.args.StandardSave(state), "description": ocp.args.JsonSave(description)}
    with self._explained():
      if not self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics):
        raise ValueError("there is one of that step or a later one already")
    self.blocked_seconds += time.perf_counter() - began
    self.saves += 1

  def check(self) -> None:
    """Raises a UserError where the save under way has failed."""
    with self._explained():
      self._manager.check_for_errors()

  @contextlib.contextmanager
  def _explained(self):
    try:
      yield
    except Exception as error:  # Orbax raises whatever its layers meet
      if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
        raise  # a lost peer, which `hosts.lost_peers_end_the_run` tells of
      kept = max((s for s in self._manager.all_steps() if s != self._step), default=None)
      newest = f"the newest one is of step {kept}" if kept is not None else "there is none yet"
      kind = UserError if needs_a_hand(error) else RunFailed
      raise kind(
        f"the checkpoint of step {self._step} cannot be written to {self._manager.directory} ({short(error)});"
        f" {newest}; mend that and run again to go on"
      ) from error

  def __enter__(self):
    return self

  def __exit__(self, kind, *exception):
    if kind is None:
      with self._explained():
        self._manager.wait_until_finished()
    with contextlib.suppress(Exception):  # told already
      self._manager.close()


def needs_a_hand(error: Exception) -> bool:
  """Whether somebody has to free space or give leave, as starting again would not."""
  words = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS))
  return any(word in str(error) for word in words)


def short(error: Exception) -> str:
  text = " ".join(str(error).split()) or type(error).__name__
  return text if len(text) <= 200 else f"... {text[-200:]}"  # what the system said stands last


def write_variables(workdir: str, variables: dict[str, Any], config, class_names) -> epath.Path:
  """Writes `params` and `batch_stats` as step 0 of a new work directory, whole or not at all.

  Args:
    workdir: absent, or empty.
    variables: the two collections.
    config: what `find` is to give.
    class_names: in label order.

  Returns:
    The checkpoint's path.
  """
  workdir = epath.Path(workdir).absolute()
  partial = workdir.with_name(f".{workdir.name}.partial")  # beside it, so that a rename makes it whole at once
  try:
    if partial.exists():  # of a process that was killed
      partial.rmtree()
    with Saver(partial, keep=1) as saver:
      saver.save(0, variables, config, class_names, metrics=None)
    write_config(partial, config)
    if workdir.exists():
      workdir.rmdir()
    partial.rename(workdir)
  except BaseException:
    _remove(partial)
    raise
  return workdir / "checkpoints" / "0"


def _remove(path: epath.Path) -> None:
  """Removes what a failed save left, whose threads may go on writing for a moment."""
  for _ in range(10):
    if path.exists():
      with contextlib.suppress(OSError):
        path.rmtree()
    time.sleep(0.2)
    if not path.exists():
      return


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint found on disk, and what describes it.

  Attributes:
    path: its directory.
    step: of its state.
    config: of the run.
    class_names: in label order.
    digest: of its arrays; None in those of older versions.
    group: how many images batch norm saw together, if known.
    metrics: of the evaluation at this step, if there was one.
  """

  path: epath.Path
  step: int
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  digest: str | None
  group: int | None
  metrics: dict[str, float] | None

  def read_arrays(self) -> dict[str, np.ndarray]:
    """name -> array on the host, whoever wrote them; see `integrity.arrays_by_name`.

    A process reads by itself: no other has to take part.

    Raises:
      Damaged: they are not those that were saved.
      RunFailed: they cannot be read now, for want of leave, memory or a connection.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
      primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    _quieten_orphans()
    try:
      with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        shapes = checkpointer.metadata(self.path / "state").item_metadata.tree
        like = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), shapes)
        tree = checkpointer.restore(self.path / "state", args=ocp.args.StandardRestore(like))
    except Exception as error:  # Orbax raises whatever its layers meet in damaged files
      _raise_if_passing(error, self.path)
      raise Damaged(short(error)) from error
    arrays = integrity.arrays_by_name(tree)
    integrity.check_arrays(arrays, self.digest)
    return arrays

  def restore_variables(self) -> dict[str, Any]:
    """`params` and `batch_stats` as nested dicts of arrays on the host.

    Raises:
      UserError: the files are damaged.
    """
    try:
      arrays = self.read_arrays()
    except Damaged as error:
      raise UserError(f"checkpoint {self.path} cannot be read ({error}); move it away to use an earlier one") from error
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    return {collection: tree.get(collection, {}) for collection in ("params", "batch_stats")}


_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "PERMISSION_DENIED")


def _raise_if_passing(error: Exception, path: epath.Path) -> None:
  """Raises a RunFailed for what says nothing of the files: they may be read another time."""
  words = (*_PASSING, os.strerror(errno.EACCES))
  if isinstance(error, MemoryError | ConnectionError | TimeoutError) or any(word in str(error) for word in words):
    raise RunFailed(f"checkpoint {path} cannot be read now ({short(error)}); run again") from error


@functools.cache
def _quieten_orphans() -> None:
  """Where one array cannot be read or written, others under way find their caller gone, and each would print that."""
  before = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
      before(unraisable)

  sys.unraisablehook = hook


def state_from(arrays: dict[str, np.ndarray], like, path):
  """What `Checkpoint.read_arrays` gives as a tree with the structure, shapes and dtypes of `like`.

  Raises:
    UserError: it does not have them; names the checkpoint by `path`.
  """
  wanted, found = (
    {name: (array.shape, array.dtype) for name, array in named.items()}
    for named in (integrity.arrays_by_name(like), arrays)
  )
  for name in sorted(wanted.keys() | found.keys()):
    if wanted.get(name) != found.get(name):
      raise UserError(
        f"{path} has {name} as {found.get(name)} where this version and config have {wanted.get(name)};"
        " choose another --workdir"
      )
  return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in wanted])  # in the order of its leaves


def find(path: str, flag: str = "--checkpoint") -> Checkpoint:
  """A checkpoint from its own directory, or the newest of a work directory.

  Raises:
    UserError: there is none, or its description is damaged; names the flag that the path came from.
  """
  given = epath.Path(path).absolute()
  # In buckets, those being written are there already.
  steps = [step for step in steps_in(given) if ocp.utils.is_checkpoint_finalized(step)]
  for candidate in [*steps[:1], given]:
    try:
      if found := read(candidate):
        return found
      if candidate != given:
        raise Damaged("its description or its state is missing")
    except Damaged as error:
      raise UserError(f"{flag}: {candidate} cannot be read ({error}); move it away to use an earlier one") from error
  what = "does not exist" if not given.exists() else "is neither a work directory nor a checkpoint"
  raise UserError(f"{flag}={path} {what}; give a WORKDIR with checkpoints/, or WORKDIR/checkpoints/<step>")


def steps_in(workdir: str) -> list[epath.Path]:
  """The directories of a work directory's checkpoints, newest first."""
  directory = epath.Path(workdir).absolute() / "checkpoints"
  steps = [path for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
  return sorted(steps, key=lambda path: -int(path.name))


def read(path: epath.Path) -> Checkpoint | None:
  """What describes the checkpoint in a directory; None if it holds none.

  Raises:
    Damaged: its description is not what was saved.
  """
  described = path / "description" / "metadata"
  if not (described.is_file() and (path / "state").is_dir()):
    return None
  try:
    description = json.loads(described.read_text())
    integrity.check_seal(description)
    return Checkpoint(
      path,
      description["step"],
      from_json(description["config"]),
      tuple(description["class_names"]),
      description.get("digest"),
      description.get("group"),
      description.get("metrics"),
    )
  except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    _raise_if_passing(error, path)
    raise Damaged(f"its description is damaged: {short(error)}") from error


def write_config(workdir: str, config) -> None:
  """Writes `WORKDIR/config.json`, whole or not at all."""
  path = epath.Path(workdir) / "config.json"
  partial = path.with_suffix(".partial")
  partial.write_text(json.dumps(to_json(config), indent=2) + "\n")
  partial.replace(path)


def to_json(config) -> dict:
  """A config as plain JSON values (tuples become lists)."""
  return json.loads(config.to_json())


def from_json(values: dict) -> ml_collections.ConfigDict:
  """A config from `to_json`'s values, lists as tuples again so that they compare and override as before."""

  def tuples(value):
    if isinstance(value, dict):
      return {k: tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value

  return ml_collections.ConfigDict(tuples(values))
