"""Devices: one mesh axis, `data`; states replicated, batches split."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from shufflenet_jax.errors import UserError

AXIS = "data"  # the one axis of the mesh


def data_mesh(devices=None) -> Mesh:
  """A mesh over `devices`, all there are by default."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(field: str, batch_size: int, num_devices: int, parts: int = 1):
  """Raises a UserError unless a batch divides over the devices, `parts` micro-batches each."""
  unit = num_devices * parts
  if batch_size <= 0 or batch_size % unit:
    below = max(batch_size // unit * unit, 0)
    nearest = ", ".join(str(b) for b in (below, below + unit) if b)
    micro = f" in {parts} micro-batches" if parts > 1 else ""
    raise UserError(f"{field}={batch_size} does not divide over {num_devices} devices{micro}; nearest: {nearest}")


def micro_batches(config, num_devices: int) -> int:
  """How many micro-batches, each a statistics group of batch norm, a device's part of a training batch is taken in.

  Raises:
    UserError: the batch does not divide so.
  """
  batch, group, parts = config.batch_size, config.batch_norm_group, config.accumulate_steps
  if not group:
    check_batch_size("config.batch_size", batch, num_devices, parts)
    return parts
  check_batch_size("config.batch_size", batch, num_devices)
  share = batch // num_devices
  if share % group:
    raise UserError(
      f"config.batch_norm_group={group} does not divide a device's {share} images (batch_size={batch} over"
      f" {num_devices} devices); nearest: {max(d for d in range(1, share + 1) if share % d == 0 and d <= group)}, or"
      " fewer devices"
    )
  if parts not in (1, share // group):
    raise UserError(
      f"config.accumulate_steps={parts} makes groups of {share // parts} images, config.batch_norm_group={group}"
      " others; leave one of them out"
    )
  return share // group


def replicate(tree, mesh: Mesh):
  """Puts a tree of host or device arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """A process's part of a batch -> the global batch, split over the devices along its first axis."""
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
