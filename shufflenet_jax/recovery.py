"""The newest checkpoint of a work directory that is whole, once what is not has been set aside."""

import json
from collections.abc import Callable

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from shufflenet_jax import checkpoint
from shufflenet_jax.checkpoint import Checkpoint
from shufflenet_jax.errors import UserError
from shufflenet_jax.integrity import Damaged

FOLDER = "damaged"  # in the work directory


def newest_whole(workdir: str, say: Callable[[str], None] = print) -> tuple[Checkpoint, dict[str, np.ndarray]] | None:
  """The newest checkpoint whose files are as they were written, and its arrays; None if there is none.

  Newer ones that are half-written or damaged are moved to `WORKDIR/damaged/`,
  none is deleted, and `say` is told of each.

  Raises:
    UserError: there are checkpoints, and all are damaged; or one cannot be moved.
    RunFailed: one cannot be read now, for want of leave, memory or a connection.
  """
  workdir = epath.Path(workdir).absolute()
  directory = workdir / "checkpoints"
  for path in sorted(directory.iterdir()) if directory.is_dir() else []:
    # In buckets nothing is renamed: what is being written has its final name from the first.
    unfinished = path.name.isdigit() and not ocp.utils.is_checkpoint_finalized(path)
    if unfinished or ocp.path.step.TMP_DIR_SUFFIX in path.name:
      say(f"{path} is half-written; it is set aside as {_set_aside(path, workdir)}")
  whole, damaged = None, 0
  for path in checkpoint.steps_in(workdir):
    try:
      found = _described(path)
      # Of the older ones the description alone is looked at: they are read if they are needed.
      whole = whole or (found, _arrays(found))
    except Damaged as error:
      damaged += 1
      say(f"checkpoint {path} is damaged ({error}); it is set aside as {_set_aside(path, workdir)}")
  if damaged and not whole:
    raise UserError(
      f"none of the checkpoints in {directory} is whole; they are in {workdir / FOLDER}, where they may be mended."
      " The same command would begin anew"
    )
  return whole


def _arrays(found: Checkpoint) -> dict[str, np.ndarray]:
  arrays = found.read_arrays()
  if int(arrays.get("step", found.step)) != found.step:
    raise Damaged(f"its state is of step {int(arrays['step'])}")
  return arrays


def _described(path: epath.Path) -> Checkpoint:
  found = checkpoint.read(path)
  if found is None:
    raise Damaged("its description or its state is missing")
  if found.step != int(path.name):
    raise Damaged(f"it is of step {found.step}")
  metrics = path / "metrics" / "metrics"
  if metrics.parent.exists():  # which Orbax reads of all checkpoints, to know the best
    try:
      if json.dumps(json.loads(metrics.read_text())) != json.dumps(found.metrics):  # as text, where NaN equals NaN
        raise ValueError("they are not those that were saved")
    except (OSError, ValueError) as error:
      raise Damaged(f"its metrics are damaged: {error}") from None
  return found


def _set_aside(path: epath.Path, workdir: epath.Path) -> epath.Path:
  folder = workdir / FOLDER
  try:
    folder.mkdir(exist_ok=True)
    taken = {p.name for p in folder.iterdir()}
    number = next(i for i in range(len(taken) + 1) if f"{path.name}.{i}" not in taken)
    return path.rename(folder / f"{path.name}.{number}")
  except OSError as error:
    raise UserError(f"{path} is damaged and cannot be moved to {folder}: {error.strerror or error}") from None
