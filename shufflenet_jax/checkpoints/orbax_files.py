"""Orbax's files in a local folder, written and read by one process alone."""

import functools
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

STATE, DESCRIPTION = "state", "description"  # folders that Orbax makes


def write(folder: str, state, description: dict) -> None:
  """Writes host arrays (a tree) and JSON values (a dict) to a new folder; raises whatever Orbax's layers raise."""
  _silence_orphans()
  alone = _this_process_alone()
  handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone))
  with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
    items = {STATE: ocp.args.StandardSave(state), DESCRIPTION: ocp.args.JsonSave(description)}
    checkpointer.save(folder, args=ocp.args.Composite(**items))


def read_state(folder: str):
  """Reads the tree of arrays in a `STATE` folder, to the host; raises whatever Orbax's layers raise."""
  _silence_orphans()
  alone = _this_process_alone()
  handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
  with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
    shapes = checkpointer.metadata(folder).item_metadata.tree
    like = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), shapes)
    return checkpointer.restore(folder, args=ocp.args.StandardRestore(like))


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
  """Without this, Orbax waits for the other processes of the run."""
  me = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
  )


@functools.cache
def _silence_orphans() -> None:
  """Silences "Event loop is closed", which each of Orbax's other tasks prints when one array fails."""
  before = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
      before(unraisable)

  sys.unraisablehook = hook
