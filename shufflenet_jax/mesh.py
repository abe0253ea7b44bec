"""Devices: one mesh axis, `data`; states replicated, batches split."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from shufflenet_jax.errors import UserError
from shufflenet_jax.train_step import AXIS


def join_hosts():
  """Joins this process to the others of the same job, as JAX finds them on Cloud TPU, GKE and Slurm.

  Raises:
    UserError: there are none to be found.
  """
  try:
    jax.distributed.initialize()
  except (ValueError, RuntimeError) as error:
    raise UserError(f"--distributed: JAX found no job of several hosts here ({error})") from None


def data_mesh(devices=None) -> Mesh:
  """A mesh over `devices`, all there are by default."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(field: str, batch_size: int, mesh: Mesh, parts: int = 1):
  """Raises a UserError unless a batch divides over the devices, `parts` micro-batches each."""
  unit = mesh.size * parts
  if batch_size <= 0 or batch_size % unit:
    below = max(batch_size // unit * unit, 0)
    nearest = ", ".join(str(b) for b in (below, below + unit) if b)
    micro = f" in {parts} micro-batches" if parts > 1 else ""
    raise UserError(f"{field}={batch_size} does not divide over {mesh.size} devices{micro}; nearest: {nearest}")


def replicate(tree, mesh: Mesh):
  """Puts a tree of host or device arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """A process's part of a batch -> the global batch, split over the devices along its first axis."""
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
