"""Writes records into shards, each complete or absent, and continues where an earlier run stopped."""

import dataclasses
import json
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent import futures

import numpy as np
import tensorflow as tf

from shufflenet_jax import storage
from shufflenet_jax.data import cores
from shufflenet_jax.data.picture_formats import PictureError
from shufflenet_jax.data.prepare.source import Picture

SHARD_BYTES = 128_000_000
MIN_SHARDS = 16  # so that several hosts can read

_RESULTS = "done"  # folder that holds the `Result` of each complete shard


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of a split.

  Attributes:
    file_name: as TFDS expects it.
    pictures: the ones to write, in order.
  """

  file_name: str
  pictures: list[Picture]


@dataclasses.dataclass(frozen=True)
class Result:
  """What was written into a shard.

  Attributes:
    pictures: how many.
    record_bytes: size of their records without TFRecord's framing, which is what TFDS counts.
    file_bytes: size of the file.
    bad: `NAME: reason` for each picture that was left out.
  """

  pictures: int
  record_bytes: int
  file_bytes: int
  bad: list[str]


def assign(name: str, split: str, pictures: list[Picture], count: int | None) -> list[Shard]:
  """Shuffles the pictures of a split, always in the same way, and divides them into shards.

  Args:
    name: of the dataset.
    split: train or validation.
    pictures: at least one, in an order that depends only on the pictures.
    count: of shards, at most one per picture. None: one for each 128 MB of pictures, and at least 16.
  """
  count = count or max(MIN_SHARDS, math.ceil(sum(p.size for p in pictures) / SHARD_BYTES))
  count = min(count, len(pictures))
  parts = np.array_split(np.random.default_rng(0).permutation(len(pictures)), count)
  return [
    Shard(f"{name}-{split}.tfrecord-{i:05}-of-{count:05}", [pictures[j] for j in part]) for i, part in enumerate(parts)
  ]


class _Stopped(Exception):
  """Another thread failed, or Ctrl-C was pressed, so the shard is abandoned."""


@dataclasses.dataclass
class _Progress:
  """What all threads have done so far, and whether they must stop."""

  lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
  stop: threading.Event = dataclasses.field(default_factory=threading.Event)
  begin: float = dataclasses.field(default_factory=time.monotonic)
  pictures: int = 0
  record_bytes: int = 0

  def add(self, record_bytes: int) -> None:
    """Counts one picture."""
    with self.lock:
      self.pictures += 1
      self.record_bytes += record_bytes

  def describe(self, done_before: int, total: int) -> str:
    """One line; `done_before` of the `total` pictures were written by earlier runs."""
    done, per_second = done_before + self.pictures, self.pictures / (time.monotonic() - self.begin)
    left = round((total - done) / per_second) if per_second else 0
    return (
      f"{done:,} of {total:,} pictures ({done / total:.1%}), {per_second:,.0f}/s,"
      f" {self.record_bytes / 1e6:,.0f} MB written, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    )


def write(
  folder: str, shards: list[Shard], to_record: Callable[[Picture], bytes], show: Callable[[str], None]
) -> list[Result]:
  """Writes the shards that are missing, one thread per processor core.

  Args:
    folder: where to write.
    shards: of all splits.
    to_record: picture -> serialized example; may raise `PictureError`.
    show: called with a line of progress, often.

  Returns:
    The result of each shard, in order.

  Raises:
    UserError: there is no space or no permission, or a source has vanished. Complete shards remain.
  """
  file_sizes = dict(storage.walk(folder))
  for name in [name for name in file_sizes if name.endswith(".partial")]:  # of a process that was killed
    storage.remove_file(storage.join(folder, name))
  results = {shard.file_name: _earlier_result(folder, shard, file_sizes) for shard in shards}
  missing = [shard for shard in shards if not results[shard.file_name]]
  if len(missing) < len(shards):
    print(f"{len(shards) - len(missing)} of {len(shards)} shards were already complete", flush=True)
  total = sum(len(shard.pictures) for shard in shards)
  done_before = total - sum(len(shard.pictures) for shard in missing)
  progress = _Progress()
  # Threads are enough: Pillow and TensorFlow release Python's lock while they work.
  with futures.ThreadPoolExecutor(cores.count()) as pool:
    running = {pool.submit(_write_shard, folder, shard, to_record, progress): shard for shard in missing}
    pending = set(running)
    try:
      while pending:
        finished, pending = futures.wait(pending, timeout=0.2, return_when=futures.FIRST_EXCEPTION)
        for future in finished:
          results[running[future].file_name] = future.result()
        show(progress.describe(done_before, total))
    except BaseException:  # also Ctrl-C
      progress.stop.set()
      pool.shutdown(cancel_futures=True)
      raise
  return [results[shard.file_name] for shard in shards]


def remove_results(folder: str) -> None:
  """Removes the files that only `write` needs, once the dataset is complete."""
  storage.remove_folder(storage.join(folder, _RESULTS))


def _result_file(shard: Shard) -> str:
  return f"{_RESULTS}/{shard.file_name}.json"


def _earlier_result(folder: str, shard: Shard, file_sizes: dict[str, int]) -> Result | None:
  """The result of an earlier run that completed the shard; `file_sizes` is that of all files in `folder`."""
  if shard.file_name not in file_sizes or _result_file(shard) not in file_sizes:
    return None
  result = Result(**json.loads(storage.read_bytes(storage.join(folder, _result_file(shard)))))
  return result if result.file_bytes == file_sizes[shard.file_name] else None


def _write_shard(folder: str, shard: Shard, to_record: Callable[[Picture], bytes], progress: _Progress) -> Result:
  count, record_bytes, bad = 0, 0, []
  with storage.new_file(storage.join(folder, shard.file_name)) as path:
    with tf.io.TFRecordWriter(path) as writer:
      for picture in shard.pictures:
        if progress.stop.is_set():
          raise _Stopped
        try:
          record = to_record(picture)
        except PictureError as error:
          bad.append(f"{picture.name}: {error}")
          progress.add(0)
          continue
        writer.write(record)
        count += 1
        record_bytes += len(record)
        progress.add(len(record))
    result = Result(pictures=count, record_bytes=record_bytes, file_bytes=os.path.getsize(path), bad=bad)
  storage.write_text(storage.join(folder, _result_file(shard)), json.dumps(dataclasses.asdict(result), indent=2))
  return result
