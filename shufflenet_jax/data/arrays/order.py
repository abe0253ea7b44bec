"""Which examples make up each batch of a split in memory: host arrays of ids, from which the devices cut the batch."""

from collections.abc import Iterator

import numpy as np


def training(num_examples: int, batch_size: int, seed: int, start_step: int, process: tuple[int, int]) -> Iterator:
  """Endless batches from `start_step` on: the epochs, each in its own order, laid end to end.

  The global batch of a step is a function of (seed, step) alone. Every example comes once in an epoch.

  Args:
    num_examples: in the split.
    batch_size: global, a multiple of the number of processes.
    seed: of the order.
    start_step: the step of the first batch.
    process: (index, count); a process yields its contiguous part of each batch.

  Yields:
    {`id`, `epoch`}: int32 (batch_size // count,).
  """
  index, count = process
  local_size = batch_size // count
  position = start_step * batch_size
  epoch, done = divmod(position, num_examples)
  ids = epoch_order(num_examples, seed, epoch)[done:]
  epochs = np.full(len(ids), epoch, np.int32)
  while True:
    while len(ids) < batch_size:
      epoch += 1
      ids = np.concatenate([ids, epoch_order(num_examples, seed, epoch)])
      epochs = np.concatenate([epochs, np.full(num_examples, epoch, np.int32)])
    own = slice(index * local_size, (index + 1) * local_size)
    yield {"id": ids[:batch_size][own], "epoch": epochs[:batch_size][own]}
    ids, epochs = ids[batch_size:], epochs[batch_size:]


def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
  """int32 (num_examples,): a permutation of the ids, which is a function of (seed, epoch) alone."""
  order = np.random.default_rng([seed % 2**64, epoch]).permutation(num_examples)
  return order.astype(np.int32)


def evaluation(num_examples: int, batch_size: int, process: tuple[int, int]) -> Iterator:
  """Batches that hold every example exactly once over all processes.

  Args:
    num_examples: in the split.
    batch_size: global, a multiple of the number of processes.
    process: (index, count). All processes yield the same number of batches.

  Yields:
    {`id` int32, `mask` bool}: (batch_size // count,). The last batch is padded with example 0, whose mask is False.
  """
  index, count = process
  local_size = batch_size // count
  for first in range(0, num_examples, batch_size):
    rows = first + index * local_size + np.arange(local_size, dtype=np.int32)
    mask = rows < num_examples
    yield {"id": np.where(mask, rows, 0), "mask": mask}
