"""Batches on the devices: streamed from a split's files, or cut from a split that the devices hold in memory."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from shufflenet_jax.data.arrays import augment, order
from shufflenet_jax.data.arrays.arrays import Arrays
from shufflenet_jax.data.split import Split
from shufflenet_jax.distributed import hosts, mesh
from shufflenet_jax.distributed.mesh import AXIS
from shufflenet_jax.tasks.task import Task


class Batches(NamedTuple):
  """Where batches come from.

  Attributes:
    host: (start_step) -> this process's part of each batch from that step on, as NumPy arrays. Evaluations start at 0.
    to_devices: one of these -> the global batch on the devices: what a step takes.
  """

  host: Callable[[int], Iterator[dict[str, np.ndarray]]]
  to_devices: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]]


def for_training(split: Split | Arrays, config, task: Task, over: jax.sharding.Mesh) -> Batches:
  """Endless, shuffled and augmented batches, a function of (seed, step): `image`, the task's targets, and maybe `flip`.

  `to_devices` leaves out the `id` of the host's batches: int (n,), the examples' positions in the split.
  """
  batch_size, process = config.batch_size, hosts.this_process()
  if isinstance(split, Arrays):
    cut = functools.partial(augment.training_batch, config=config.data, seed=config.seed)
    rows = functools.partial(order.training, len(split.images), batch_size, config.seed)
    return Batches(lambda start_step: rows(start_step, process), _Cutter(split, cut, ("id", "epoch"), task, over))
  from shufflenet_jax.data.stream import examples, training  # which import TensorFlow

  def stream(start_step: int) -> Iterator:
    return training.train_batches(
      split,
      config.data,
      batch_size=batch_size,
      num_classes=config.model.num_classes,
      seed=config.seed,
      start_step=start_step,
      kind=examples.KINDS[task.examples],
      process=process,
      warn=functools.partial(print, flush=True),
    )

  return Batches(stream, functools.partial(_transfer, names=("image", *task.targets, "flip"), over=over))


def for_evaluation(split: Split | Arrays, config, task: Task, over: jax.sharding.Mesh) -> Batches:
  """Every example exactly once: `image`, the task's targets, and `mask`."""
  batch_size, process = config.eval_batch_size, hosts.this_process()
  if isinstance(split, Arrays):
    cut = functools.partial(augment.evaluation_batch, config=config.data)
    rows = functools.partial(order.evaluation, len(split.images), batch_size, process)
    return Batches(lambda start_step: rows(), _Cutter(split, cut, ("id", "mask"), task, over))
  from shufflenet_jax.data.stream import evaluation, examples  # which import TensorFlow

  def stream(start_step: int) -> Iterator:
    return evaluation.eval_batches(
      split,
      config.data,
      batch_size=batch_size,
      num_classes=config.model.num_classes,
      kind=examples.KINDS[task.examples],
      process=process,
    )

  return Batches(stream, functools.partial(_transfer, names=("image", *task.targets, "mask"), over=over))


def _transfer(batch: dict[str, np.ndarray], *, names, over) -> dict[str, jax.Array]:
  return mesh.split_batch({name: batch[name] for name in names if name in batch}, over)


class _Cutter:
  """Cuts batches from the pictures of a split, which it puts on every device when it is first called."""

  def __init__(self, split: Arrays, cut: Callable, rows: tuple[str, ...], task: Task, over: jax.sharding.Mesh):
    """
    Args:
      split: the pictures.
      cut: (images, labels, *rows) -> batch, on one device.
      rows: which of a host batch's arrays `cut` takes.
      task: the batch holds those of its targets that the split has.
      over: the devices.
    """
    whole, part = PartitionSpec(), PartitionSpec(AXIS)
    self._cut = jax.jit(jax.shard_map(cut, mesh=over, in_specs=(whole, whole, *(part for _ in rows)), out_specs=part))
    self._split, self._rows, self._mesh, self._names = split, rows, over, ("image", *task.targets, "mask")

  @functools.cached_property
  def _on_devices(self) -> tuple[jax.Array, jax.Array]:
    return mesh.replicate((self._split.images, self._split.labels), self._mesh)

  def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    rows = mesh.split_batch({name: batch[name] for name in self._rows}, self._mesh)
    cut = self._cut(*self._on_devices, *(rows[name] for name in self._rows))
    return {name: cut[name] for name in self._names if name in cut}
