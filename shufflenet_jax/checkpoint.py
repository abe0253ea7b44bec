"""Orbax checkpoints. `WORKDIR/checkpoints/<step>/` holds a `state` and a `description` (config and class names):
one such directory alone is enough to evaluate and predict."""

import contextlib
import dataclasses
import json
import time
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath

from shufflenet_jax.errors import UserError
from shufflenet_jax.train_step import TrainState

_policy = ocp.checkpoint_managers


def manager(workdir: str, keep: int) -> ocp.CheckpointManager:
  """Saves asynchronously; keeps the newest `keep` and, of those evaluated, the one with the best top-1."""
  policy = _policy.AnyPreservationPolicy(
    [
      _policy.LatestN(keep),
      _policy.BestN(get_metric_fn=lambda m: m["top1"], n=1, keep_checkpoints_without_metrics=False),
    ]
  )
  options = ocp.CheckpointManagerOptions(preservation_policy=policy)
  return ocp.CheckpointManager(epath.Path(workdir).absolute() / "checkpoints", options=options)


def save(checkpoints: ocp.CheckpointManager, step: int, state, config, class_names, metrics) -> None:
  """Begins to save in the background; metrics are those of an evaluation at this step, or None."""
  description = {"step": step, "config": to_json(config), "class_names": list(class_names)}
  checkpoints.save(
    step,
    args=ocp.args.Composite(state=ocp.args.StandardSave(state), description=ocp.args.JsonSave(description)),
    metrics=metrics,
  )


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
    with manager(partial, keep=1) as checkpoints:  # leaving it waits for the save
      save(checkpoints, 0, variables, config, class_names, metrics=None)
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


def restore_state(checkpoints: ocp.CheckpointManager, step: int, like: TrainState) -> TrainState:
  """The state of a step, with the shapes, dtypes and shardings of `like`.

  Raises:
    UserError: its files are damaged.
  """
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  with _readable(checkpoints.directory / str(step)):
    return checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]


@contextlib.contextmanager
def _readable(path: epath.Path):
  try:
    yield
  except Exception as error:  # Orbax raises whatever its layers meet in damaged files
    text = " ".join(str(error).split())[:200]
    raise UserError(f"checkpoint {path} cannot be read ({text}); move it away to use an earlier one") from error


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint found on disk: its path, step, and what describes it."""

  path: epath.Path
  step: int
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]

  def restore_variables(self) -> dict[str, Any]:
    """`params` and `batch_stats` on one device, whatever devices wrote them.

    Raises:
      UserError: the files are damaged.
    """
    with _readable(self.path), ocp.StandardCheckpointer() as checkpointer:
      shapes = checkpointer.metadata(self.path / "state").item_metadata.tree
      device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
      abstract = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device), shapes)
      state = checkpointer.restore(self.path / "state", abstract)
    return {"params": state["params"], "batch_stats": state.get("batch_stats") or {}}


def find(path: str, flag: str = "--checkpoint") -> Checkpoint:
  """A checkpoint from its own directory, or the newest of a work directory.

  Raises:
    UserError: there is none; names the flag that the path came from.
  """
  given = epath.Path(path).absolute()
  newest = newest_in(given)
  if found := newest or _read(given):
    return found
  what = "does not exist" if not given.exists() else "is neither a work directory nor a checkpoint"
  raise UserError(f"{flag}={path} {what}; give a WORKDIR with checkpoints/, or WORKDIR/checkpoints/<step>")


def newest_in(workdir: str) -> Checkpoint | None:
  """The newest checkpoint of a work directory, None if there is none yet."""
  directory = epath.Path(workdir).absolute() / "checkpoints"
  steps = [int(p.name) for p in directory.iterdir() if p.name.isdigit()] if directory.is_dir() else []
  return next(filter(None, (_read(directory / str(step)) for step in sorted(steps, reverse=True))), None)


def _read(path: epath.Path) -> Checkpoint | None:
  described = path / "description" / "metadata"
  if not (described.is_file() and (path / "state").is_dir()):
    return None
  with _readable(path):
    description = json.loads(described.read_text())
    return Checkpoint(path, description["step"], from_json(description["config"]), tuple(description["class_names"]))


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
