"""The training stream (endless, shuffled, resumable) and the exact evaluation stream.

Batches are dicts of NumPy arrays: `image` uint8 (n, size, size, 3), `label`
int32 (n,), `id` int64 (n,): the example's place in the split. Training adds
`flip` bool (n,): which the step mirrors. Evaluation adds `mask` bool (n,):
False where the last batch was padded, or a picture could not be decoded.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from shufflenet_jax import storage
from shufflenet_jax.data import pictures
from shufflenet_jax.data.sources import datasets
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream import augment, in_memory, readers
from shufflenet_jax.errors import UserError

Batch = dict[str, np.ndarray]


# For functions that are traced: they say `tf.cond` where they mean it, and seconds of looking for an `if` are spared.
_unconverted = tf.autograph.experimental.do_not_convert


class BadPictures:
  """Those met that cannot be decoded: each is named once; too many are an error.

  Attributes:
    ids: of the examples met, in this process.
  """

  def __init__(self, split: Split, field: str, limit: int, say: Callable[[str], None]):
    self.ids: set[int] = set()
    self._split, self._field, self._limit, self._say = split, field, limit, say

  def meet(self, example_id: int) -> None:
    """Raises a UserError where there are more than the limit."""
    if example_id in self.ids:
      return
    self.ids.add(example_id)
    what = self._split.explain(example_id)
    if len(self.ids) > self._limit:
      met = f" ({len(self.ids)} pictures by now)" if self._limit else ""
      raise UserError(f"{what}{met}; --config.data.{self._field}={self._limit} may be skipped, set it higher to go on")
    self._say(f"skipped: {what}")


def raw_examples(split: Split) -> tf.data.Dataset:
  """(id, image uint8 (h, w, 3), label) of every example, in order, as stored."""

  def decoded(i, record):
    encoded, label = split.parse(record)
    return i, pictures.decode(encoded), tf.cast(label, tf.int32)

  return split.read(tf.range(len(split.sizes)), tf.zeros(len(split.sizes), tf.int64), split.sizes).map(
    _unconverted(decoded)
  )


def train_batches(
  split: Split,
  config,
  *,
  batch_size: int,
  num_classes: int,
  seed: int,
  start_step: int,
  process=(0, 1),
  say: Callable[[str], None] = print,
) -> Iterator[Batch]:
  """Endless training batches from `start_step` on.

  The global batch of a step, and each image in it, are functions of (seed,
  step) alone: the same after a resume, and on any number of processes. What
  went before is neither read nor decoded, but for the rest of a window that is
  shuffled as a whole. A picture that cannot be decoded gives its place to its
  neighbour in the process's part of the batch: there alone the number of
  processes shows.

  Args:
    split: what to read.
    config: the config's `data` section.
    batch_size: global.
    num_classes: labels must be below it.
    seed: of shuffling and augmentation.
    start_step: the first batch is this step's.
    process: (index, count); a process reads and gets its contiguous part of each batch.
    say: told of pictures that are skipped.

  Raises:
    UserError: a label out of range, more than `config.max_bad_train` pictures that cannot be decoded, a damaged file,
      or a number of processes that does not divide the readers.
  """
  index, count = process
  bad = BadPictures(split, "max_bad_train", config.max_bad_train, say)

  def examples(step, careful):
    return train_examples(split, config, batch_size, seed=seed, start_step=step, process=process, careful=careful)

  for batch in _restarting(examples, batch_size // count, start_step, split):
    _check(batch, num_classes, split, bad)
    yield _with_neighbours(batch)


def train_examples(
  split: Split, config, batch_size: int, *, seed: int, start_step: int, process=(0, 1), careful: bool = False
) -> tf.data.Dataset:
  """A process's rows of the global batches, one after the other; see `train_batches` and `_train_example`."""
  index, count = process
  num_readers = readers.count(batch_size)
  if num_readers % count:
    raise UserError(
      f"config.batch_size={batch_size} is read by {num_readers} readers, which do not divide over {count} processes;"
      f" a multiple of {max(count, readers.MOST_READERS)} does"
    )
  if in_memory.fits(split, config.shuffle_bytes):
    records = in_memory.records(split, batch_size, seed, start_step, process)
  else:
    records = _read_records(split, config.shuffle_bytes, batch_size, seed, start_step, process)
  return records.map(_unconverted(_train_example(split, config, careful)), tf.data.AUTOTUNE, deterministic=True)


def _read_records(split, shuffle_bytes: int, batch_size: int, seed: int, start_step: int, process) -> tf.data.Dataset:
  """As `in_memory.records`, of a split that is read anew in every epoch, by readers that each have some rows."""
  num_readers = readers.count(batch_size)
  own, index = num_readers // process[1], process[0]
  numbers = tf.data.Dataset.range(index * own, (index + 1) * own)
  return numbers.interleave(
    _unconverted(lambda i: _reader_records(split, i, shuffle_bytes, batch_size, num_readers, seed, start_step)),
    cycle_length=own,
    block_length=batch_size // num_readers,
    num_parallel_calls=min(own, 16),
    deterministic=True,
  )


def _reader_records(split, reader, shuffle_bytes: int, batch_size: int, num_readers: int, seed: int, start_step: int):
  """A reader's endless (key, id, record) from a step on; `key` int32 is a function of (seed, epoch).

  Its records are shuffled a window at a time, while the next window, of the
  next epoch perhaps, is read.
  """
  n, place = split.num_examples, start_step * batch_size
  sizes = tf.constant(split.sizes)
  window = tf.constant(max(1, shuffle_bytes // (2 * num_readers * split.record_bytes)), tf.int64)

  def epoch_windows(epoch):
    first, last = readers.piece(epoch, reader, n, batch_size, num_readers)
    done = readers.done_before(epoch, reader, place, n, batch_size, num_readers)
    begin = done // window * window
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    order = tf.random.experimental.stateless_shuffle(tf.range(len(split.sizes), dtype=tf.int64), seeds)
    records = split.read(*readers.cut(tf.cumsum(tf.gather(sizes, order)), order, sizes, first + begin, last))
    records = in_memory.whole(records, last - first - begin)
    key = tf.cast(tf.random.experimental.stateless_fold_in(seeds, 0)[0], tf.int32)

    def described(i, parts):
      window_first = begin + i * window
      window_seed = (seed * 1_000_003 + epoch) * 4_099 + window_first * num_readers + reader
      return key, window_seed, tf.maximum(done - window_first, 0), parts

    return records.window(window).enumerate().map(described)

  def shuffled(key, window_seed, skip, parts):
    records = tf.data.Dataset.zip(parts).shuffle(window, seed=window_seed, reshuffle_each_iteration=False)
    return records.skip(skip).map(lambda i, record: (key, i, record))

  epochs = tf.data.Dataset.range(place // n, np.iinfo(np.int64).max)
  return epochs.flat_map(epoch_windows).prefetch(1).flat_map(shuffled)


def _train_example(split: Split, config, careful: bool):
  """(key, id, record) -> a training example, with `ok`: whether its picture could be decoded.

  The quick form takes pictures to be JPEGs where the split's first ones are,
  and fails at one that cannot be decoded. The careful form takes all that
  `pictures.decode` does, gives the same pixels where the quick one gives any,
  and never fails.
  """

  def seeds(key, i):
    return tf.stack([key, tf.cast(i, tf.int32)])

  def example_with(crop):
    def example(key, i, record):
      seed = seeds(key, i)
      encoded, label = split.parse(record)
      image = crop(encoded, config.image_size, config.min_crop_area, config.max_crop_aspect, seed)
      image = augment.resize_crop(image, config.image_size, config.color_jitter, seed + 1)
      return {"image": image, "label": tf.cast(label, tf.int32), "id": i, "ok": True} | flip(seed + 2)

    return example

  def flip(seed):
    return {"flip": tf.random.stateless_uniform((), seed) < 0.5} if config.flip else {}

  def any_crop(encoded, *rest):
    return tf.cond(
      tf.io.is_jpeg(encoded),
      lambda: augment.random_crop_of_jpeg(encoded, *rest),
      lambda: augment.random_crop(pictures.decode(encoded), *rest),
    )

  if not careful:
    return example_with(augment.random_crop_of_jpeg if _begins_with_jpegs(split) else any_crop)
  return _never_failing(example_with(any_crop), config.image_size, flip(seed=(0, 0)))


def _begins_with_jpegs(split: Split) -> bool:
  some = range(min(4, len(split.sizes)))
  records = split.read(tf.constant(some, tf.int64), tf.zeros(len(some), tf.int64), tf.ones(len(some), tf.int64))
  return all(tf.io.is_jpeg(split.parse(record)[0]) for _, record in records)


def _never_failing(example, size: int, more: dict):
  """A map function that gives an example with `ok` False and a black picture where `example` fails."""

  def guarded(*args):
    blank = {"image": tf.zeros((size, size, 3), tf.uint8), "label": 0, "id": args[-2], "ok": False} | more
    tried = tf.data.Dataset.from_tensors(args).map(example).ignore_errors()
    return tried.concatenate(tf.data.Dataset.from_tensors(blank)).take(1).get_single_element()

  return guarded


_FIRST_CAREFUL_BATCHES = 16


def _restarting(examples, batch_size: int, start: int, split: Split) -> Iterator[Batch]:
  """Batches of `examples(start, careful=False)`; careful ones for a while where it fails, longer each time.

  Being careful takes a sixth more time a picture, and beginning anew some time
  too: pictures that cannot be decoded are rare, or many.

  Args:
    examples: (first batch, careful) -> `tf.data.Dataset` of examples.
    batch_size: examples in a batch; a last, smaller one is yielded as well.
    start: the first batch.
    split: for messages.

  Raises:
    UserError: careful reading fails too, or the storage refuses.
    RunFailed: the storage did not answer.
  """
  careful_left, next_careful = 0, _FIRST_CAREFUL_BATCHES
  while True:
    careful = careful_left > 0
    try:
      batches = examples(start, careful).batch(batch_size).prefetch(2).as_numpy_iterator()
      for batch in storage.report_slow_reads(batches, split.where):
        yield batch
        start += 1
        careful_left -= careful
        if careful and not careful_left:
          break
      else:
        return
    except tf.errors.OpError as error:
      explained = storage.diagnose_read_error(error, split.where)
      if isinstance(explained, storage.StorageError):  # which says nothing about the pictures
        raise explained from None
      if careful:
        remedy = "put it back, or prepare it anew" if isinstance(explained, FileNotFoundError) else "prepare it anew"
        raise UserError(f"{split.name} cannot be read: {datasets.plain(error)}; {remedy}") from None
      careful_left, next_careful = next_careful, 2 * next_careful


def _with_neighbours(batch: Batch) -> Batch:
  """Bad rows replaced by the nearest good ones before them (from the end, at the beginning)."""
  ok = batch.pop("ok")
  if ok.all():
    return batch
  if not ok.any():
    raise UserError(f"none of the pictures {batch['id'].tolist()[:5]}... of a batch can be decoded")
  good = np.flatnonzero(ok)
  source = np.where(ok, np.arange(len(ok)), good[np.searchsorted(good, np.arange(len(ok))) - 1])
  return {k: v[source] for k, v in batch.items()}


def eval_batches(
  split: Split, config, *, batch_size: int, num_classes: int, process=(0, 1), say: Callable[[str], None] = print
) -> Iterator[Batch]:
  """Every example exactly once over all processes, in full batches; the last ones padded.

  Args and Raises: as `train_batches`, with `config.max_bad_eval`. Every process
  reads its contiguous part of the split and yields the same number of batches.
  """
  index, count = process
  local = batch_size // count
  first, last = (tf.constant(split.num_examples * p // count, tf.int64) for p in (index, index + 1))
  order, sizes = tf.range(len(split.sizes), dtype=tf.int64), tf.constant(split.sizes)
  bad = BadPictures(split, "max_bad_eval", config.max_bad_eval, say)

  def example(i, record):
    encoded, label = split.parse(record)
    image = augment.center_crop(pictures.decode(encoded), config.image_size, config.eval_resize, config.antialias)
    return {"image": image, "label": tf.cast(label, tf.int32), "id": i, "ok": True}

  def examples(start, careful):
    records = split.read(*readers.cut(tf.cumsum(sizes), order, sizes, first, last), parallel=True)
    records = in_memory.whole(records, last - first).skip(start * local)
    prepare = _never_failing(example, config.image_size, {}) if careful else example
    return records.map(_unconverted(prepare), tf.data.AUTOTUNE, deterministic=True)

  batches = _restarting(examples, local, 0, split)
  empty = {
    "image": np.zeros((0, config.image_size, config.image_size, 3), np.uint8),
    "label": np.zeros(0, np.int32),
    "id": np.zeros(0, np.int64),
    "ok": np.zeros(0, bool),
  }
  for _ in range(-(-split.num_examples // batch_size)):
    batch = next(batches, empty)
    _check(batch, num_classes, split, bad)
    missing = local - len(batch["label"])
    padded = {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
    yield padded | {"mask": padded.pop("ok")}


def _check(batch: Batch, num_classes: int, split: Split, bad: BadPictures) -> None:
  """Raises a UserError for a label out of range, or too many bad pictures."""
  labels = batch["label"]
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    raise UserError(
      f"label {labels[wrong[0]]} of example {batch['id'][wrong[0]]} in {split.name} is out of range for"
      f" num_classes={num_classes}"
    )
  for example_id in batch["id"][~batch["ok"]].tolist():
    bad.meet(example_id)
