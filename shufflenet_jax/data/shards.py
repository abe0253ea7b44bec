"""Writes records into shards, each whole or absent, and goes on where a run before was stopped."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent import futures

import numpy as np
import tensorflow as tf

from shufflenet_jax.data.recode import PictureError
from shufflenet_jax.data.sources import Picture
from shufflenet_jax.errors import UserError

SHARD_BYTES = 128_000_000
MIN_SHARDS = 16  # so that several hosts can read


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of a split.

  Attributes:
    file_name: as TFDS names it.
    pictures: which go into it, in order.
  """

  file_name: str
  pictures: list[Picture]


@dataclasses.dataclass(frozen=True)
class Written:
  """What became of a shard.

  Attributes:
    pictures: how many are in it.
    record_bytes: their records, without TFRecord's framing: what TFDS counts.
    file_bytes: size of the file.
    bad: `NAME: why` of each picture left out.
  """

  pictures: int
  record_bytes: int
  file_bytes: int
  bad: list[str]


def deal(name: str, split: str, pictures: list[Picture], count: int | None) -> list[Shard]:
  """Shuffles over the whole split, the same each time, and deals into `count` shards.

  Args:
    name: of the dataset.
    split: train or validation.
    pictures: at least one, in an order that depends on nothing but themselves.
    count: None: one for 128 MB of pictures, at least 16; no more than there are pictures.
  """
  count = count or max(MIN_SHARDS, math.ceil(sum(p.size for p in pictures) / SHARD_BYTES))
  count = min(count, len(pictures))
  parts = np.array_split(np.random.default_rng(0).permutation(len(pictures)), count)
  return [
    Shard(f"{name}-{split}.tfrecord-{i:05}-of-{count:05}", [pictures[j] for j in part]) for i, part in enumerate(parts)
  ]


def plan_path(folder: str) -> str:
  """Where a dataset made by this command says what it was made of."""
  return os.path.join(folder, "prepare_plan.json")


def check_same_plan(plan: dict, folder: str) -> None:
  """Writes the plan into a new folder; in an old one it must be the same.

  Raises:
    UserError: it is another one.
  """
  if not os.path.exists(plan_path(folder)):
    _write_whole(plan_path(folder), plan)
    return
  with open(plan_path(folder)) as file:
    there = json.load(file)
  differing = [f"{key}: {there.get(key)} there, {plan[key]} now" for key in plan if there.get(key) != plan[key]]
  if differing:
    raise UserError(
      f"{folder} was begun from something else: {'; '.join(differing)}; give what it was begun with, or another --name"
      " or --to, or remove it"
    )


def _write_whole(path: str, content: dict) -> None:
  with open(f"{path}.partial", "w") as file:
    json.dump(content, file, indent=2)
    file.flush()
    os.fsync(file.fileno())
  os.replace(f"{path}.partial", path)


def _done_folder(work: str) -> str:
  return os.path.join(work, "done")


@contextlib.contextmanager
def locked(work: str):
  """Makes the folder, and keeps a second run out of it.

  Raises:
    UserError: another run is in it.
    OSError: it cannot be made.
  """
  os.makedirs(_done_folder(work), exist_ok=True)
  with open(os.path.join(_done_folder(work), "lock"), "w") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f"another run is writing {work}; wait for it") from None
    yield


@dataclasses.dataclass
class _Tally:
  """What the threads have done, and whether they shall go on."""

  lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
  stop: threading.Event = dataclasses.field(default_factory=threading.Event)
  pictures: int = 0
  record_bytes: int = 0

  def add(self, record_bytes: int) -> None:
    with self.lock:
      self.pictures += 1
      self.record_bytes += record_bytes


def write(
  work: str, shards: list[Shard], to_record: Callable[[Picture], bytes], tell: Callable[[str], None]
) -> list[Written]:
  """Writes the shards that are not there yet, one thread a core.

  Args:
    work: the folder, locked.
    shards: of all splits.
    to_record: a picture's serialised example; may raise `PictureError`.
    tell: called with a line of progress, often.

  Returns:
    For each shard what became of it.

  Raises:
    OSError, tf.errors.OpError: no room, no permission. Whole shards stay.
    UserError: a source is not there any more.
  """
  for name in os.listdir(work):
    if name.endswith(".partial"):
      os.remove(os.path.join(work, name))
  written = {shard.file_name: _found(work, shard) for shard in shards}
  missing = [shard for shard in shards if not written[shard.file_name]]
  if len(missing) < len(shards):
    print(f"{len(shards) - len(missing)} of {len(shards)} shards are there from before", flush=True)
  total = sum(len(shard.pictures) for shard in shards)
  kept = total - sum(len(shard.pictures) for shard in missing)
  tally, begin = _Tally(), time.monotonic()
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  with futures.ThreadPoolExecutor(cores) as pool:  # Pillow and TensorFlow let go of Python's lock where they work
    running = {pool.submit(_write_shard, work, shard, to_record, tally): shard for shard in missing}
    pending = set(running)
    try:
      while pending:
        finished, pending = futures.wait(pending, timeout=0.2, return_when=futures.FIRST_EXCEPTION)
        for future in finished:
          written[running[future].file_name] = future.result()
        tell(_line(kept + tally.pictures, total, tally, time.monotonic() - begin))
    except BaseException:  # Ctrl-C too
      tally.stop.set()
      pool.shutdown(cancel_futures=True)
      raise
  return [written[shard.file_name] for shard in shards]


def _line(pictures: int, total: int, tally: _Tally, seconds: float) -> str:
  per_second = tally.pictures / seconds
  left = round((total - pictures) / per_second) if per_second else 0
  return (
    f"{pictures:,} of {total:,} pictures ({pictures / total:.1%}), {per_second:,.0f}/s,"
    f" {tally.record_bytes / 1e6:,.0f} MB written, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
  )


def _sidecar(work: str, shard: Shard) -> str:
  return os.path.join(_done_folder(work), f"{shard.file_name}.json")


def _found(work: str, shard: Shard) -> Written | None:
  """What a run before said about a shard that it completed."""
  path = os.path.join(work, shard.file_name)
  if not (os.path.exists(path) and os.path.exists(_sidecar(work, shard))):
    return None
  with open(_sidecar(work, shard)) as file:
    written = Written(**json.load(file))
  return written if written.file_bytes == os.path.getsize(path) else None


def _write_shard(work: str, shard: Shard, to_record: Callable[[Picture], bytes], tally: _Tally) -> Written | None:
  path = os.path.join(work, shard.file_name)
  count, record_bytes, bad = 0, 0, []
  try:
    with tf.io.TFRecordWriter(f"{path}.partial") as writer:
      for picture in shard.pictures:
        if tally.stop.is_set():
          return None
        try:
          record = to_record(picture)
        except PictureError as error:
          bad.append(f"{picture.name}: {error}")
          tally.add(0)
          continue
        writer.write(record)
        count += 1
        record_bytes += len(record)
        tally.add(len(record))
    with open(f"{path}.partial", "rb") as file:
      os.fsync(file.fileno())
      written = Written(count, record_bytes, os.fstat(file.fileno()).st_size, bad)
    os.replace(f"{path}.partial", path)
    _write_whole(_sidecar(work, shard), dataclasses.asdict(written))
    return written
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(f"{path}.partial")


def forget(folder: str) -> None:
  """Takes away what only `write` needed."""
  for name in os.listdir(_done_folder(folder)):
    os.remove(os.path.join(_done_folder(folder), name))
  os.rmdir(_done_folder(folder))
