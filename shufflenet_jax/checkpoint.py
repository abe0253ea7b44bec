"""Orbax checkpoints. `WORKDIR/checkpoints/<step>/` holds a `state` and a `description` (config and class names):
one such directory alone is enough to evaluate and predict."""

import dataclasses
import json
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


def save(checkpoints: ocp.CheckpointManager, step: int, state: TrainState, config, class_names, metrics) -> None:
  """Begins to save in the background; metrics are those of an evaluation at this step, or None."""
  description = {"config": to_json(config), "class_names": list(class_names)}
  checkpoints.save(
    step,
    args=ocp.args.Composite(state=ocp.args.StandardSave(state), description=ocp.args.JsonSave(description)),
    metrics=metrics,
  )


def restore_state(checkpoints: ocp.CheckpointManager, step: int, like: TrainState) -> TrainState:
  """The state of a step, with the shapes, dtypes and shardings of `like`."""
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  return checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint found on disk: its path, step, and what describes it."""

  path: epath.Path
  step: int
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]

  def restore_variables(self) -> dict[str, Any]:
    """`params` and `batch_stats` as host arrays, whatever devices wrote them."""
    with ocp.StandardCheckpointer() as checkpointer:
      shapes = checkpointer.metadata(self.path / "state").item_metadata.tree
      host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
      abstract = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=host), shapes)
      state = checkpointer.restore(self.path / "state", abstract)
    return {"params": state["params"], "batch_stats": state["batch_stats"]}


def find(path: str) -> Checkpoint:
  """A checkpoint from its own directory, or the newest of a work directory.

  Raises:
    UserError: there is none.
  """
  given = epath.Path(path).absolute()
  candidates = [given]
  if (given / "checkpoints").is_dir():
    candidates = sorted(
      (p for p in (given / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name), reverse=True
    )
  for found in candidates:
    described = found / "description" / "metadata"
    if found.name.isdigit() and described.is_file() and (found / "state").is_dir():
      description = json.loads(described.read_text())
      config = from_json(description["config"])
      return Checkpoint(found, int(found.name), config, tuple(description["class_names"]))
  what = "does not exist" if not given.exists() else "is neither a work directory nor a checkpoint"
  raise UserError(f"--checkpoint={path} {what}; give a WORKDIR with checkpoints/, or WORKDIR/checkpoints/<step>")


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
