"""Which examples make up the batches of a split in memory."""

import itertools

import numpy as np
import pytest

from shufflenet_jax.data.arrays import order


def training(steps, num_examples=30, batch_size=8, seed=0, start_step=0, process=(0, 1)):
  return list(itertools.islice(order.training(num_examples, batch_size, seed, start_step, process), steps))


@pytest.mark.parametrize(("num_examples", "batch_size"), [(30, 8), (8, 8), (3, 8)])
def test_each_example_comes_once_in_an_epoch(num_examples, batch_size):
  epochs = 4
  batches = training(num_examples * epochs // batch_size + 1, num_examples, batch_size)
  ids = np.concatenate([b["id"] for b in batches])[: num_examples * epochs].reshape(epochs, num_examples)
  of_epoch = np.concatenate([b["epoch"] for b in batches])[: num_examples * epochs].reshape(epochs, num_examples)
  np.testing.assert_array_equal(np.sort(ids), np.tile(np.arange(num_examples), (epochs, 1)))
  np.testing.assert_array_equal(of_epoch, np.tile(np.arange(epochs)[:, None], (1, num_examples)))
  assert any((ids[0] != other).any() for other in ids[1:])


def test_a_step_has_the_same_batch_after_a_resume_and_with_two_processes():
  whole = training(9)
  for resumed, batch in zip(training(4, start_step=5), whole[5:]):
    np.testing.assert_equal(resumed, batch)
  parts = [training(9, process=(i, 2)) for i in range(2)]
  for first, second, batch in zip(*parts, whole):
    np.testing.assert_equal({k: np.concatenate([first[k], second[k]]) for k in batch}, batch)


def test_seeds_give_other_orders_and_may_be_negative():
  orders = [tuple(order.epoch_order(30, seed, 0)) for seed in (0, 1, -1, 2**63 - 1)]
  assert len(set(orders)) == 4


@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_has_each_example_once(count):
  parts = [list(order.evaluation(21, 8, (i, count))) for i in range(count)]
  assert {len(part) for part in parts} == {3}
  batches = [batch for part in parts for batch in part]
  assert {len(b["id"]) for b in batches} == {8 // count}
  assert sorted(np.concatenate([b["id"][b["mask"]] for b in batches])) == list(range(21))
