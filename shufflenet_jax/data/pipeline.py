"""The training stream (endless, shuffled, resumable) and the exact evaluation stream.

Batches are dicts of NumPy arrays: `image` uint8 (n, size, size, 3), `label`
int32 (n,), `id` int64 (n,): the example's place in the split; evaluation adds
`mask` bool (n,): False where the last batch was padded.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from shufflenet_jax.data import augment, datasets
from shufflenet_jax.data.datasets import Split
from shufflenet_jax.errors import UserError

Batch = dict[str, np.ndarray]


def _records(split: Split, order: tf.Tensor | None = None) -> tf.data.Dataset:
  """(id, record) of every example, shards in the given order; fails at the end if there are not as many as promised."""
  shards = split.shards if order is None else tuple(tf.gather(s, order) for s in split.shards)
  records = tf.data.Dataset.from_tensor_slices(shards).flat_map(split.read_shard)
  return records.apply(tf.data.experimental.assert_cardinality(split.num_examples))


def _decoded(split: Split, record) -> tuple[tf.Tensor, tf.Tensor]:
  encoded, label = split.parse(record)
  return augment.decode(encoded), tf.cast(label, tf.int32)


def raw_examples(split: Split) -> tf.data.Dataset:
  """(id, image uint8 (h, w, 3), label) of every example, in order, as stored."""
  return _records(split).map(lambda i, record: (i, *_decoded(split, record)))


def train_batches(
  split: Split, config, *, batch_size: int, num_classes: int, seed: int, start_step: int, process=(0, 1)
) -> Iterator[Batch]:
  """Endless training batches from `start_step` on.

  The global batch of a step, and each image in it, are functions of (seed,
  step) alone: the same after a resume, and on any number of processes. Records
  that went before are passed over within one epoch, and never decoded.

  Args:
    split: what to read.
    config: the config's `data` section.
    batch_size: global.
    num_classes: labels must be below it.
    seed: of shuffling and augmentation.
    start_step: the first batch is this step's.
    process: (index, count); a process gets its contiguous part of each batch.

  Raises:
    UserError: a label out of range.
  """
  index, count = process
  local = batch_size // count
  epoch_of_start, done = divmod(start_step * batch_size, split.num_examples)

  def epoch_records(epoch):
    key = tf.stack([tf.constant(seed, tf.int64), epoch])
    order = tf.random.experimental.stateless_shuffle(tf.range(len(split.shards[0])), key)
    records = _records(split, order).shuffle(
      config.shuffle_buffer, seed=seed * 1_000_003 + epoch, reshuffle_each_iteration=False
    )
    skip = tf.where(epoch == epoch_of_start, tf.constant(done, tf.int64), tf.constant(0, tf.int64))
    return records.skip(skip).map(lambda i, record: (epoch, i, record))

  def prepare(epoch, i, record):
    image, label = _decoded(split, record)
    key = tf.random.experimental.stateless_fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), i)
    image = augment.random_resized_crop(
      image,
      config.image_size,
      config.min_crop_area,
      config.max_crop_aspect,
      config.flip,
      config.antialias,
      tf.cast(key, tf.int32),
    )
    return {"image": image, "label": label, "id": i}

  dataset = tf.data.Dataset.range(epoch_of_start, np.iinfo(np.int64).max).flat_map(epoch_records)
  if count > 1:  # this process's part of each global batch, taken before anything is decoded
    dataset = dataset.batch(batch_size).map(lambda *x: tuple(v[index * local : (index + 1) * local] for v in x))
    dataset = dataset.unbatch()
  dataset = dataset.map(prepare, tf.data.AUTOTUNE, deterministic=True)
  dataset = dataset.batch(local, drop_remainder=True).prefetch(4)
  yield from _checked(dataset, num_classes, split)


def eval_batches(split: Split, config, *, batch_size: int, num_classes: int, process=(0, 1)) -> Iterator[Batch]:
  """Every example exactly once over all processes, in order, in full batches; the last ones padded.

  Args and Raises: as `train_batches`. Every process yields the same number of batches.
  """
  index, count = process
  local = batch_size // count
  dataset = _records(split).shard(count, index)

  def prepare(i, record):
    image, label = _decoded(split, record)
    image = augment.center_crop(image, config.image_size, config.eval_resize, config.antialias)
    return {"image": image, "label": label, "id": i}

  dataset = dataset.map(prepare, tf.data.AUTOTUNE, deterministic=True).batch(local).prefetch(4)
  batches = _checked(dataset, num_classes, split)
  empty = {
    "image": np.zeros((0, config.image_size, config.image_size, 3), np.uint8),
    "label": np.zeros(0, np.int32),
    "id": np.zeros(0, np.int64),
  }
  for _ in range(-(-split.num_examples // batch_size)):
    batch = next(batches, empty)
    real = len(batch["label"])
    padded = {k: np.pad(v, [(0, local - real)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    yield padded | {"mask": np.arange(local) < real}


def _checked(dataset: tf.data.Dataset, num_classes: int, split: Split) -> Iterator[Batch]:
  """The dataset's batches; what is wrong with the data becomes a UserError."""
  batches = dataset.as_numpy_iterator()
  last_id = -1
  while True:
    try:
      batch = next(batches)
    except StopIteration:
      return
    except tf.errors.OpError as error:
      raise UserError(split.explain(last_id + 1, datasets.plain(error))) from None
    labels, last_id = batch["label"], int(batch["id"][-1])
    if not (labels.min() >= 0 and labels.max() < num_classes):
      bad = np.flatnonzero((labels < 0) | (labels >= num_classes))[0]
      raise UserError(
        f"label {labels[bad]} of example {batch['id'][bad]} in {split.name} is out of range for"
        f" num_classes={num_classes}"
      )
    yield batch
