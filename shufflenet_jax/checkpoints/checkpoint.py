"""What a checkpoint holds, and reading one. `WORKDIR/checkpoints/<step>/` holds a `state` and a `description` (config,
class names, digests), in Orbax's format: one such directory alone is enough to evaluate and predict."""

import dataclasses
import json
import sys
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import integrity, orbax_files
from shufflenet_jax.checkpoints.integrity import Damaged
from shufflenet_jax.config import fields
from shufflenet_jax.errors import CommandEnded, RunFailed, UserError

FOLDER, CONFIG = "checkpoints", "config.json"  # in the work directory
DESCRIPTION = "description/metadata"  # in a checkpoint; written last, so that one without it is half-written


def short(error: Exception) -> str:
  """The error in one line of at most 200 characters."""
  text = " ".join(str(error).split()) or type(error).__name__
  return text if len(text) <= 200 else f"... {text[-200:]}"  # the system's own message comes last


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint found on disk, and what describes it.

  Attributes:
    path: of its directory, as `storage.normalize` returns paths.
    step: of its state.
    config: of the run.
    class_names: in label order.
    digest: of its arrays; None in those of older versions.
    statistics_group: how many images batch norm saw together, if known.
    metrics: of the evaluation at this step, if there was one.
  """

  path: str
  step: int
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  digest: str | None
  statistics_group: int | None
  metrics: dict[str, float] | None

  def read_arrays(self) -> dict[str, np.ndarray]:
    """Reads the arrays to the host, whatever devices wrote them: name -> array, see `integrity.arrays_by_name`.

    A process reads by itself: no other has to take part.

    Raises:
      Damaged: the arrays are not those that were saved.
      Refused, Unavailable: they cannot be read now, because permission, memory or a connection is missing.
    """
    state = storage.join(self.path, orbax_files.STATE)
    try:
      with storage.local_copy(state) as folder:
        tree = orbax_files.read_state(folder)
    except CommandEnded:
      raise
    except FileNotFoundError as error:
      raise Damaged(f"{error.filename} is missing") from error
    except Exception as error:  # Orbax raises exceptions of any kind, alike for a forbidden file and a damaged one
      if isinstance(error, MemoryError):
        raise storage.translate_error(error, state) from error
      try:
        for name, _ in storage.walk(state):  # if a file cannot be read, this raises the true reason
          storage.read_bytes(storage.join(state, name))
      except FileNotFoundError as missing:
        raise Damaged(f"{missing.filename} is missing") from error
      raise Damaged(short(error)) from error
    arrays = integrity.arrays_by_name(tree)
    integrity.check_arrays(arrays, self.digest)
    return arrays

  def restore_variables(self) -> dict[str, Any]:
    """`params` and `batch_stats` as nested dicts of arrays on the host.

    Raises:
      UserError: the files are damaged.
      RunFailed: the files were removed meanwhile, for instance by a training run that saved newer checkpoints.
    """
    try:
      arrays = self.read_arrays()
    except Damaged as error:
      if not storage.is_file(storage.join(self.path, DESCRIPTION)):
        raise RunFailed(f"{self.path} was removed while it was read; run the same command again") from error
      raise UserError(f"checkpoint {self.path} cannot be read ({error}); move it away to use an earlier one") from error
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    return {collection: tree.get(collection, {}) for collection in ("params", "batch_stats")}


def state_from(arrays: dict[str, np.ndarray], like, path):
  """Arrays from `Checkpoint.read_arrays`, as a tree with the structure, shapes and dtypes of `like`.

  Raises:
    UserError: names, shapes or dtypes differ. The message names the checkpoint by its `path`.
  """
  wanted, present = (
    {name: f"{array.dtype}{list(array.shape)}" for name, array in named.items()}
    for named in (integrity.arrays_by_name(like), arrays)
  )
  for name in sorted(wanted.keys() | present.keys()):
    if wanted.get(name) != present.get(name):
      has, needs = present.get(name, "no such array"), wanted.get(name, "none")
      raise UserError(f"{path}: {name} is {has}, but this version and config need {needs}; choose another --workdir")
  return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in wanted])  # in the order of its leaves


def find(path: str, flag: str = "--checkpoint", others: str = "") -> Checkpoint:
  """A checkpoint from its own directory, or the newest of a work directory.

  Args:
    path: of either.
    flag: where the path comes from, for messages.
    others: what else the flag takes, for the end of the message that there is no checkpoint.

  Raises:
    UserError: there is none, or its description is damaged.
  """
  given = storage.normalize(path, f"{flag}=")
  wanted = f"a WORKDIR with checkpoints/, or WORKDIR/checkpoints/<step>{others}"
  try:
    steps = [path for _, path in steps_in(given)]
  except storage.Refused:
    if storage.is_file(given):
      raise UserError(f"{flag}={path} is a file; give {wanted}") from None
    raise
  for candidate in [*steps, given]:
    try:
      if found := read(candidate):
        return found
      if candidate != given:
        print(f"note: {candidate} is half-written, or being written; looking for an earlier one", file=sys.stderr)
    except Damaged as error:
      raise UserError(f"{flag}: {candidate} cannot be read ({error}); move it away to use an earlier one") from error
  what = "is neither a work directory nor a checkpoint"
  if not storage.is_folder(given):
    what = "is a file" if storage.is_file(given) else "does not exist"
  raise UserError(f"{flag}={path} {what}; give {wanted}")


def steps_in(workdir: str) -> list[tuple[int, str]]:
  """(step, path of the directory) of a work directory's checkpoints, newest first.

  Raises:
    Refused, Unavailable: the work directory cannot be listed.
  """
  directory = storage.join(storage.normalize(workdir), FOLDER)
  entries = storage.list_folder(directory, missing_ok=True)
  steps = [int(name) for name, is_folder in entries if is_folder and name.isdigit()]
  return [(step, storage.join(directory, str(step))) for step in sorted(steps, reverse=True)]


def read(path: str) -> Checkpoint | None:
  """Reads the description of the checkpoint in a directory; None if the directory holds no checkpoint.

  Raises:
    Damaged: its description is not what was saved.
    Refused, Unavailable: it cannot be read now, which does not mean that it is damaged.
  """
  try:
    described = storage.read_bytes(storage.join(path, DESCRIPTION))
  except FileNotFoundError:
    return None
  try:
    description = json.loads(described)
    integrity.check_seal(description)
    return Checkpoint(
      path=path,
      step=description["step"],
      config=from_json(fields.complete(description["config"])),
      class_names=tuple(description["class_names"]),
      digest=description.get("digest"),
      statistics_group=description.get("group"),
      metrics=description.get("metrics"),
    )
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise Damaged(f"its description is damaged: {short(error)}") from error


def write_config(workdir: str, config) -> None:
  """Writes `WORKDIR/config.json`, whole or not at all."""
  storage.write_text(storage.join(workdir, CONFIG), json.dumps(to_json(config), indent=2) + "\n")


def to_json(config) -> dict:
  """A config as plain JSON values (tuples become lists)."""
  return json.loads(config.to_json())


def from_json(values: dict) -> ml_collections.ConfigDict:
  """A config from `to_json`'s values, with lists as tuples again, so that fields compare and override as before."""

  def tuples(value):
    if isinstance(value, dict):
      return {k: tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value

  return ml_collections.ConfigDict(tuples(values))
