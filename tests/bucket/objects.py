"""Buckets, their objects with generations, and the limit of one write per second to each name."""

import base64
import dataclasses
import hashlib
import threading
import time
from collections.abc import Mapping

import google_crc32c

from tests.bucket import errors

MAX_COMPONENTS_OF_A_REQUEST = 32


def crc32c(data: bytes) -> str:
  """The checksum as the service encodes it: in base64, of its big-endian bytes."""
  return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def md5(data: bytes) -> str:
  return base64.b64encode(hashlib.md5(data).digest()).decode()


@dataclasses.dataclass(frozen=True)
class Object:
  """One generation of an object.

  Attributes:
    components: how many objects it was composed of; None unless composed.
    created: seconds since the epoch, of this generation.
    updated: seconds since the epoch, of its metadata.
  """

  bucket: str
  name: str
  data: bytes
  generation: int
  created: float
  updated: float
  crc32c: str
  md5: str | None
  metageneration: int = 1
  content_type: str | None = None
  metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
  components: int | None = None


@dataclasses.dataclass(frozen=True)
class Conditions:
  """The generation and preconditions of a request; None for those that it does not have."""

  generation: int | None = None
  generation_match: int | None = None
  generation_not_match: int | None = None
  metageneration_match: int | None = None
  metageneration_not_match: int | None = None

  def check_write(self, current: Object | None) -> None:
    """Raises 412 if the present object, or its absence, does not meet the preconditions."""
    generation, metageneration = (current.generation, current.metageneration) if current else (0, 0)
    if (
      (self.generation_match is not None and self.generation_match != generation)
      or (self.generation_not_match is not None and self.generation_not_match == generation)
      or (self.metageneration_match is not None and self.metageneration_match != metageneration)
      or (self.metageneration_not_match is not None and self.metageneration_not_match == metageneration)
    ):
      raise errors.precondition_failed()

  def check_read(self, current: Object) -> None:
    """Raises 304 if the object is unchanged, 412 if another precondition does not hold."""
    if self.generation_not_match == current.generation or self.metageneration_not_match == current.metageneration:
      raise errors.not_modified()
    self.check_write(current)


class Store:
  """All buckets. Thread-safe: each method is one atomic operation of the service.

  Attributes:
    one_write_a_second: refuse a write to a name less than a second after the last one with 429.
    deletes_are_writes: count deletes as writes. The service counts them as mutations, but lets short bursts pass.
    too_fast: names ("bucket/object") of the writes that came too fast, whether or not they were refused.
  """

  def __init__(self, one_write_a_second: bool = True, deletes_are_writes: bool = False):
    self.one_write_a_second, self.deletes_are_writes = one_write_a_second, deletes_are_writes
    self.too_fast: list[str] = []
    self._buckets: dict[str, dict[str, Object]] = {}
    self._last_writes: dict[tuple[str, str], float] = {}
    self._last_generation = 0
    self._lock = threading.RLock()

  def clear(self) -> None:
    """Forgets every bucket, object and write."""
    with self._lock:
      self._buckets.clear()
      self._last_writes.clear()
      self.too_fast.clear()

  def add_bucket(self, bucket: str) -> None:
    with self._lock:
      self._buckets.setdefault(bucket, {})

  def buckets(self) -> list[str]:
    with self._lock:
      return sorted(self._buckets)

  def check_bucket(self, bucket: str) -> None:
    """Raises 404 unless the bucket exists."""
    self._objects(bucket)

  def listing(self, bucket: str, prefix: str = "") -> list[Object]:
    """The objects whose names begin with `prefix`, in the order of the names' UTF-8 bytes."""
    with self._lock:
      found = [x for name, x in self._objects(bucket).items() if name.startswith(prefix)]
    return sorted(found, key=lambda x: x.name.encode())

  def get(self, bucket: str, name: str, conditions: Conditions = Conditions()) -> Object:
    with self._lock:
      current = self._named(bucket, name, conditions.generation)
      conditions.check_read(current)
      return current

  def check_write(self, bucket: str, name: str, conditions: Conditions) -> None:
    """Raises the errors that `put` would raise for the bucket and the preconditions; for the start of an upload."""
    with self._lock:
      conditions.check_write(self._objects(bucket).get(name))

  def put(
    self,
    bucket: str,
    name: str,
    data: bytes,
    conditions: Conditions = Conditions(),
    content_type: str | None = None,
    metadata: Mapping[str, str] | None = None,
    components: int | None = None,
    limited: bool = True,
  ) -> Object:
    """Writes an object. Tests that prepare a bucket use `limited=False`, without the limit of one write per second."""
    checksum = crc32c(data)
    digest = None if components else md5(data)
    with self._lock:
      objects = self._objects(bucket)
      conditions.check_write(objects.get(name))
      if limited:
        self._count_write(bucket, name)
      now = time.time()
      self._last_generation = max(self._last_generation + 1, int(now * 1e6))
      objects[name] = Object(
        bucket=bucket, name=name, data=data, generation=self._last_generation, created=now, updated=now,
        crc32c=checksum, md5=digest, content_type=content_type, metadata=dict(metadata or {}), components=components,
      )  # fmt: skip
      return objects[name]

  def update(
    self, bucket: str, name: str, conditions: Conditions, content_type: str | None, metadata: Mapping | None
  ) -> Object:
    """Changes metadata: a new metageneration of the same generation. A key with the value None is removed."""
    with self._lock:
      current = self._named(bucket, name, conditions.generation)
      conditions.check_write(current)
      self._count_write(bucket, name)
      merged = {k: v for k, v in {**current.metadata, **(metadata or {})}.items() if v is not None}
      changed = dataclasses.replace(
        current, metadata=merged, content_type=content_type or current.content_type, updated=time.time(),
        metageneration=current.metageneration + 1,
      )  # fmt: skip
      self._objects(bucket)[name] = changed
      return changed

  def delete(self, bucket: str, name: str, conditions: Conditions = Conditions()) -> None:
    with self._lock:
      conditions.check_write(self._named(bucket, name, conditions.generation))
      if self.deletes_are_writes:
        self._count_write(bucket, name)
      del self._objects(bucket)[name]

  def copy(
    self, source: tuple[str, str], to: tuple[str, str], of_source: Conditions, of_destination: Conditions, changes: dict
  ) -> Object:
    """Writes the source's bytes to `to`; `changes` may name another `contentType` and `metadata`."""
    with self._lock:
      x = self.get(*source, of_source)
      return self.put(
        *to, x.data, of_destination, content_type=changes.get("contentType", x.content_type),
        metadata=changes.get("metadata", x.metadata), components=x.components,
      )  # fmt: skip

  def compose(
    self, bucket: str, name: str, sources: list[tuple[str, Conditions]], conditions: Conditions,
    content_type: str | None = None, metadata: Mapping | None = None, delete_sources: bool = False,
  ) -> Object:  # fmt: skip
    """Writes the sources' bytes, one after the other; the destination may be among the sources."""
    if not sources:
      raise errors.bad_request("You must provide at least one source component.")
    if len(sources) > MAX_COMPONENTS_OF_A_REQUEST:
      raise errors.bad_request(
        f"The number of source components provided ({len(sources)}) exceeds the maximum ({MAX_COMPONENTS_OF_A_REQUEST})"
      )
    with self._lock:
      parts = []
      for source, wanted in sources:
        parts.append(self._named(bucket, source, wanted.generation))
        wanted.check_write(parts[-1])
      count = sum(x.components or 1 for x in parts)
      data = b"".join(x.data for x in parts)
      made = self.put(bucket, name, data, conditions, content_type, metadata, components=count)
      if delete_sources:
        for x in {x.name for x in parts} - {name}:
          del self._objects(bucket)[x]
      return made

  def _objects(self, bucket: str) -> dict[str, Object]:
    with self._lock:
      if bucket not in self._buckets:
        raise errors.no_bucket()
      return self._buckets[bucket]

  def _named(self, bucket: str, name: str, generation: int | None) -> Object:
    current = self._objects(bucket).get(name)
    if current is None or generation not in (None, current.generation):
      raise errors.no_object(bucket, name)
    return current

  def _count_write(self, bucket: str, name: str) -> None:
    """Records a write and its time; raises 429 less than a second after the last successful one."""
    now, key = time.monotonic(), (bucket, name)
    if now - self._last_writes.get(key, -1e9) < 1:
      self.too_fast.append(f"{bucket}/{name}")
      if self.one_write_a_second:
        raise errors.too_fast(bucket, name)
    self._last_writes[key] = now
