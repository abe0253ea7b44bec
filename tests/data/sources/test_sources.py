"""A source of examples is a function in a table; the streams take whatever it opens."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data import sources
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import evaluation, ranges, training

LABELS = [0, 1, 2, 1, 0]


def open_memory(data, split, num_classes, class_names=(), every_class=False) -> Split:
  """Five gray pictures that exist nowhere but in memory, in a chunk of two and one of three; `data_dir` sets shades."""
  encoded = [tf.io.encode_png(np.full((40, 40, 3), i * int(data.data_dir), np.uint8)).numpy() for i in range(5)]
  sizes = np.array([2, 3])

  def read(chunks, skips, takes, parallel=False):
    first = tf.gather(np.array([0, 2]), chunks) + skips
    spans = tf.data.Dataset.from_tensor_slices((first, first + takes))
    ids = spans.flat_map(tf.data.Dataset.range)
    return ids.map(lambda i: (i, (tf.gather(encoded, i), tf.gather(LABELS, i))))

  return Split(
    name=f"{data.name} {split}", folder="memory", num_examples=5, class_names=("a", "b", "c"), dataset_classes=3,
    chunk_sizes=sizes, record_bytes=1000, read=read, parse=lambda record: record, explain=str,
  )  # fmt: skip


@pytest.mark.parametrize("shuffle_bytes", [1 << 30, 1])
def test_a_new_source_is_a_row_in_the_table(config, monkeypatch, shuffle_bytes):
  monkeypatch.setitem(sources.SOURCES, "memory", open_memory)
  config.data.name, config.data.data_dir, config.data.shuffle_bytes = "memory/gray:1.0.0", "50", shuffle_bytes
  split = sources.open_split(config.data, "train", 3)
  [batch] = evaluation.eval_batches(split, config.data, batch_size=8, num_classes=3)
  assert batch["image"][batch["mask"]].mean((1, 2, 3)).tolist() == [0, 50, 100, 150, 200]
  assert batch["label"][batch["mask"]].tolist() == LABELS
  batches = training.train_batches(split, config.data, batch_size=5, num_classes=3, seed=0, start_step=0)
  for batch in itertools.islice(batches, 3):
    np.testing.assert_array_equal(np.sort(batch["id"]), np.arange(5))
    np.testing.assert_array_equal(batch["label"], np.array(LABELS)[batch["id"]])
    np.testing.assert_array_equal(batch["image"].mean((1, 2, 3)), 50 * batch["id"])


def test_a_version_of_the_digits_is_prepared_too(config):
  config.data.name = "digits:1.0.0"
  assert sources.open_split(config.data, "test", 10).num_examples == 355


def test_ranges_of_chunks_are_all_their_examples():
  """[first, last) of three chunks of 3, 0 and 4 examples in another order, compared with a slice of all of them."""
  order, sizes = tf.constant([2, 1, 0], tf.int64), tf.constant([3, 0, 4], tf.int64)
  in_order = [(2, i) for i in range(4)] + [(0, i) for i in range(3)]
  for first, last in itertools.combinations(range(8), 2):
    parts = ranges.parts_of_chunks(order, sizes, tf.constant(first, tf.int64), tf.constant(last, tf.int64))
    rows = zip(*(part.numpy().tolist() for part in parts))
    assert [(chunk, i) for chunk, skip, take in rows for i in range(skip, skip + take)] == in_order[first:last]
