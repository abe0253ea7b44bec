"""Writes records into shards, each whole or absent, and goes on where a run before was stopped."""

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
from shufflenet_jax.data.pictures import PictureError
from shufflenet_jax.data.prepare.inputs import Picture
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


DONE = "done"  # a folder: of each whole shard, what became of it
PLAN = "prepare_plan.json"  # in a dataset's folder: what it was made of


def check_same_plan(plan: dict, folder: str) -> None:
  """Writes the plan into a new folder; in an old one it must be the same.

  Raises:
    UserError: it is another one.
  """
  path = storage.join(folder, PLAN)
  try:
    there = json.loads(storage.read_bytes(path))
  except FileNotFoundError:
    storage.write_text(path, json.dumps(plan, indent=2))
    return
  differing = [f"{key}: {there.get(key)} there, {plan[key]} now" for key in plan if there.get(key) != plan[key]]
  if differing:
    raise UserError(
      f"{folder} was begun with other pictures or flags: {'; '.join(differing)}; give the same again, or another --name"
      " or --to, or remove it"
    )


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
    work: the folder.
    shards: of all splits.
    to_record: a picture's serialised example; may raise `PictureError`.
    tell: called with a line of progress, often.

  Returns:
    For each shard what became of it.

  Raises:
    UserError: no room, no permission, a source is not there any more. Whole shards stay.
  """
  there = dict(storage.walk(work))
  for name in [name for name in there if name.endswith(".partial")]:  # of a process that was killed
    storage.remove_file(storage.join(work, name))
  written = {shard.file_name: _found(work, shard, there) for shard in shards}
  missing = [shard for shard in shards if not written[shard.file_name]]
  if len(missing) < len(shards):
    print(f"{len(shards) - len(missing)} of {len(shards)} shards are there from before", flush=True)
  total = sum(len(shard.pictures) for shard in shards)
  kept = total - sum(len(shard.pictures) for shard in missing)
  tally, begin = _Tally(), time.monotonic()
  with futures.ThreadPoolExecutor(
    cores.count()
  ) as pool:  # Pillow and TensorFlow let go of Python's lock where they work
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


def _sidecar(shard: Shard) -> str:
  return f"{DONE}/{shard.file_name}.json"


def _found(work: str, shard: Shard, there: dict[str, int]) -> Written | None:
  """What a run before said about a shard that it completed. `there`: the sizes of the files in `work`."""
  if shard.file_name not in there or _sidecar(shard) not in there:
    return None
  written = Written(**json.loads(storage.read_bytes(storage.join(work, _sidecar(shard)))))
  return written if written.file_bytes == there[shard.file_name] else None


def _write_shard(work: str, shard: Shard, to_record: Callable[[Picture], bytes], tally: _Tally) -> Written | None:
  count, record_bytes, bad = 0, 0, []
  with storage.new_file(storage.join(work, shard.file_name)) as path:
    with tf.io.TFRecordWriter(path) as writer:
      for picture in shard.pictures:
        if tally.stop.is_set():
          raise _Stopped
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
    written = Written(count, record_bytes, os.path.getsize(path), bad)
  storage.write_text(storage.join(work, _sidecar(shard)), json.dumps(dataclasses.asdict(written), indent=2))
  return written


class _Stopped(Exception):
  """Another thread failed, or Ctrl-C was pressed: the shard is given up."""


def forget(folder: str) -> None:
  """Removes what only `write` needed."""
  storage.remove_folder(storage.join(folder, DONE))
