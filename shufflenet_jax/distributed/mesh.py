"""Devices: a mesh with one axis, `data`, over which states are replicated and batches are split."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from shufflenet_jax.errors import UserError

AXIS = "data"  # the one axis of the mesh


def data_mesh(devices=None) -> Mesh:
  """A mesh over `devices`, by default over all."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(field: str, batch_size: int, num_devices: int, parts: int = 1):
  """Raises a UserError unless a batch divides over the devices, in `parts` micro-batches on each."""
  unit = num_devices * parts
  if batch_size <= 0 or batch_size % unit:
    below = max(batch_size // unit * unit, 0)
    nearest = ", ".join(str(b) for b in (below, below + unit) if b)
    micro = f" in {parts} micro-batches" if parts > 1 else ""
    raise UserError(f"{field}={batch_size} does not divide over {num_devices} devices{micro}; nearest: {nearest}")


def micro_batches(config, num_devices: int) -> int:
  """The number of micro-batches into which a device's part of a training batch is split.

  Each is a statistics group of batch norm.

  Raises:
    UserError: the batch does not divide into them.
  """
  batch, statistics_group, parts = config.batch_size, config.batch_norm_group, config.accumulate_steps
  if not statistics_group:
    check_batch_size("config.batch_size", batch, num_devices, parts)
    return parts
  check_batch_size("config.batch_size", batch, num_devices)
  share = batch // num_devices
  if share % statistics_group:
    nearest = max(d for d in range(1, share + 1) if share % d == 0 and d <= statistics_group)
    raise UserError(
      f"config.batch_norm_group={statistics_group} does not divide a device's {share} images (batch_size={batch} over"
      f" {num_devices} devices); nearest: {nearest}, or fewer devices"
    )
  if parts not in (1, share // statistics_group):
    raise UserError(
      f"config.accumulate_steps={parts} makes statistics groups of {share // parts} images, but"
      f" config.batch_norm_group={statistics_group}; set only one of the two"
    )
  return share // statistics_group


def replicate(tree, mesh: Mesh):
  """Puts a tree of host or device arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """A process's part of a batch -> the global batch, split over the devices along its first axis."""
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
