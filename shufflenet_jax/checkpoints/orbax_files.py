"""Orbax's files in a local folder, written and read by one process alone."""

import functools
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

STATE, DESCRIPTION = "state", "description"  # folders that Orbax makes


def write(folder: str, state, description: dict) -> None:
  """Makes `folder` with a tree of arrays on the host and a dict of JSON values; raises whatever Orbax's layers meet."""
  _silence_orphans()
  alone = _this_process_alone()
  handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone))
  with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
    items = {STATE: ocp.args.StandardSave(state), DESCRIPTION: ocp.args.JsonSave(description)}
    checkpointer.save(folder, args=ocp.args.Composite(**items))


def read_state(folder: str):
  """The tree of arrays, on the host, of the folder `STATE`; raises whatever Orbax's layers meet."""
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
  """When one array fails, Orbax's other tasks in flight each print "Event loop is closed": silences them."""
  before = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
      before(unraisable)

  sys.unraisablehook = hook
