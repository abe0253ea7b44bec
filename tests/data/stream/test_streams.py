"""Streams: exactly once, the same after a resume, the same whatever the number of processes."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from shufflenet_jax.data.stream import evaluation, in_memory
from tests.streams import assert_same, batches, open_digits


def test_digits_are_scikit_learns_each_in_one_split(config):
  source = load_digits()
  expected = sorted(
    (int(t), np.round(i * 255 / 16).astype(np.uint8).tobytes()) for i, t in zip(source.images, source.target)
  )
  seen, sizes = [], {}
  for name in ("train", "test"):
    split = open_digits(config, name)
    examples = list(evaluation.raw_examples(split).as_numpy_iterator())
    sizes[name] = np.bincount([label for _, _, label in examples], minlength=10)
    seen += [(int(label), image[..., 0].tobytes()) for _, image, label in examples]
  assert sorted(seen) == expected
  np.testing.assert_array_equal(sizes["test"], (sizes["train"] + sizes["test"]) // 5)


@pytest.fixture(params=["held in memory", "read in every epoch"])
def config(request, config):
  """In the second case the windows that are shuffled hold a tenth of a reader's records."""
  config.data.shuffle_bytes = {"held in memory": 1 << 30, "read in every epoch": 100_000}[request.param]
  split = open_digits(config, "train")
  assert in_memory.fits(split, config.data.shuffle_bytes) == (request.param == "held in memory")
  return config


def test_every_epoch_holds_every_example_once(config):
  n = open_digits(config, "train").num_examples
  ids = np.concatenate([b["id"] for b in itertools.islice(batches(config), 3 * n // 64 + 1)])
  epochs = ids[: 3 * n].reshape(3, n)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
  assert not (epochs[0] == epochs[1]).all()
  assert not (epochs[0] == np.arange(n)).all()


def test_resumes_at_a_step_bit_for_bit(config):
  whole = list(itertools.islice(batches(config), 41))
  for start_step in (1, 22, 40):  # within the first epoch, at its end, beyond it
    assert_same(next(batches(config, start_step)), whole[start_step])


def test_is_a_function_of_the_seed(config):
  first, again, other = (next(batches(config, seed=s)) for s in (0, 0, 1))
  assert_same(first, again)
  assert not (first["id"] == other["id"]).all()


def test_augmentation_differs_between_epochs(config):
  n = open_digits(config, "train").num_examples
  by_id = [dict(zip(b["id"].tolist(), b["image"])) for b in itertools.islice(batches(config, batch_size=n), 2)]
  pairs = [(by_id[0][i], by_id[1][i]) for i in range(50)]
  assert sum((a == b).all() for a, b in pairs) < 25  # 8x8 pixels have few distinct crops


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batch(config, count):
  whole = next(batches(config, 30))
  parts = [next(batches(config, 30, process=(p, count))) for p in range(count)]
  assert_same({k: np.concatenate([p[k] for p in parts]) for k in whole}, whole)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 100), (4, 100), (8, 800), (2, 64)])
def test_evaluation_sees_every_example_once(config, count, batch_size):
  split = open_digits(config, "test")
  streams = [
    list(evaluation.eval_batches(split, config.data, batch_size=batch_size, num_classes=10, process=(p, count)))
    for p in range(count)
  ]
  assert len({len(s) for s in streams}) == 1
  assert {b["image"].shape[0] for s in streams for b in s} == {batch_size // count}
  ids = np.concatenate([b["id"][b["mask"]] for s in streams for b in s])
  np.testing.assert_array_equal(np.sort(ids), np.arange(split.num_examples))


def test_half_of_the_examples_are_mirrored_others_each_epoch(config):
  config.data.flip = True
  n = open_digits(config, "train").num_examples
  first, second = (dict(zip(b["id"].tolist(), b["flip"])) for b in itertools.islice(batches(config, batch_size=n), 2))
  assert 0.45 < np.mean(list(first.values())) < 0.55
  assert 0.4 < np.mean([first[i] == second[i] for i in range(n)]) < 0.6


def test_a_dataset_in_windows_resumes_within_one(config):
  """Shuffled a few records at a time, as where memory is short."""
  config.data.shuffle_bytes = 2 * 64 * 3 * 400  # a few of a digit's records for each reader
  split = open_digits(config, "train")
  assert 1 < config.data.shuffle_bytes // (2 * 64 * split.record_bytes) < 10
  n = split.num_examples
  whole = list(itertools.islice(batches(config), 2 * n // 64 + 1))
  ids = np.concatenate([b["id"] for b in whole])[: 2 * n].reshape(2, n)
  for epoch in ids:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
  assert_same(next(batches(config, 17)), whole[17])
  assert_same(next(batches(config, 30)), whole[30])
