"""Finds the newest undamaged checkpoint of a work directory, and moves damaged ones out of the way."""

import contextlib
import re
from collections.abc import Callable

import numpy as np

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.checkpoints.checkpoint import Checkpoint
from shufflenet_jax.checkpoints.integrity import Damaged
from shufflenet_jax.errors import RunFailed, UserError

FOLDER = "damaged"  # in the work directory
# Parts of names of half-written checkpoints: this version's, and those of versions that left saving to Orbax.
_HALF_WRITTEN = (".partial", ".orbax-checkpoint-tmp")
_HALF_REMOVED = re.compile(r"\d+\.[0-9a-f]{8}\.removed")  # as `storage.remove_folder` names it


def newest_whole(workdir: str, say: Callable[[str], None] = print) -> tuple[Checkpoint, dict[str, np.ndarray]] | None:
  """The newest checkpoint whose files are as they were written, and its arrays; None if there is none.

  Half-written and damaged ones are moved to `WORKDIR/damaged/`, with a line to `say` for each; none is deleted.

  Raises:
    UserError: there are checkpoints, and all are damaged. None of these is moved.
    Refused, Unavailable: the work directory cannot be listed, or one of the checkpoints cannot be read or moved.
  """
  workdir = storage.normalize(workdir)
  directory = storage.join(workdir, checkpoint.FOLDER)
  for name, is_folder in storage.list_folder(directory, missing_ok=True):
    path = storage.join(directory, name)
    if is_folder and _HALF_REMOVED.fullmatch(name):
      with contextlib.suppress(UserError, RunFailed):  # what remains does no harm
        storage.remove_folder(path)
    elif any(part in name for part in _HALF_WRITTEN):
      say(f"{path} is half-written; it was moved to {_move_away(path, workdir)}")
  whole, damaged = None, []
  for age, (step, path) in enumerate(checkpoint.steps_in(workdir)):
    try:
      found = checkpoint.read(path)
      # In a bucket, a checkpoint has its final name from the beginning, so the newest one may be half-written.
      if found is None and age == 0 and not storage.can_rename(path):
        say(f"{path} is half-written; it was moved to {_move_away(path, workdir)}")
        continue
      if found is None and not storage.can_rename(path):
        raise Damaged("its description is missing, as after an interrupted removal")
      if found is None:
        raise Damaged("its description is missing")
      if found.step != step:
        raise Damaged(f"its description is of step {found.step}")
      # Once a whole one is found, only the descriptions of the older ones are checked.
      if not whole:
        say(f"reading {path} ...")
        whole = found, _arrays(found)
    except Damaged as error:
      damaged.append((path, error))
  if damaged and not whole:
    path, error = damaged[0]
    raise UserError(
      f"none of the checkpoints in {directory} is whole (the newest, {path}: {error}); repair one, or move"
      f" {directory} away to start at step 0"
    )
  for path, error in damaged:
    say(f"checkpoint {path} is not whole ({error}); it was moved to {_move_away(path, workdir)}")
  return whole


def _arrays(found: Checkpoint) -> dict[str, np.ndarray]:
  arrays = found.read_arrays()
  if int(arrays.get("step", found.step)) != found.step:
    raise Damaged(f"its state is of step {int(arrays['step'])}")
  return arrays


def _move_away(path: str, workdir: str) -> str:
  folder = storage.join(workdir, FOLDER)
  taken = [name for name, _ in storage.list_folder(folder, missing_ok=True)]
  number = next(i for i in range(len(taken) + 1) if f"{storage.name(path)}.{i}" not in taken)
  target = storage.join(folder, f"{storage.name(path)}.{number}")
  storage.move_folder(path, target, marker=checkpoint.DESCRIPTION)
  return target
