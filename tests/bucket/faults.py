"""Injected faults: which requests they strike, when, and what happens to these.

    bucket.faults.add(Fault(status(503), operations={"read"}, name=r"manifest", times=3))

The first fault that is due for a request strikes it; later ones are not asked. Name the operations where the number of
strikes matters: google-cloud-storage asks about a bucket in the background when it first uses it.
"""

import dataclasses
import random
import re
import threading
import time
from collections.abc import Callable, Collection

from tests.bucket.messages import Call

READS = frozenset({"list", "stat", "read"})
WRITES = frozenset({"upload", "compose", "rewrite", "update", "delete"})
STORAGE = READS | WRITES | {"bucket", "batch", "unknown"}


@dataclasses.dataclass(frozen=True)
class Effect:
  """What happens to a request; see the functions that make one."""

  kind: str
  number: float = 0
  message: str = ""

  def __str__(self):
    return f"{self.kind} {self.number:g}" if self.number else self.kind


def status(code: int, message: str = "") -> Effect:
  """An error answer; the request has no effect. Without a message, it is worded like the service's."""
  return Effect("status", code, message)


def reset() -> Effect:
  """The connection is reset; the request has no effect."""
  return Effect("reset")


def lose_answer() -> Effect:
  """The request takes effect, but the connection is reset before the answer."""
  return Effect("lose answer")


def cut(after: int = 100) -> Effect:
  """The connection is reset in the middle of a body.

  An answer names its full length and ends after this many bytes (at the latest before its last one). Of a part of a
  resumable upload the service keeps so much, in whole multiples of 256 KiB as the real one does; other writes are not
  done.
  """
  return Effect("cut", after)


def slow(seconds: float) -> Effect:
  """The answer comes this many seconds later."""
  return Effect("slow", seconds)


def trickle(bytes_a_second: float) -> Effect:
  """The answer's body comes at this rate, in ten parts per second."""
  return Effect("trickle", bytes_a_second)


def corrupt(at: int = 0) -> Effect:
  """The byte at this position of the answer's body is wrong; the headers have the checksum of the correct body."""
  return Effect("corrupt", at)


@dataclasses.dataclass(eq=False)
class Fault:
  """A rule.

  Attributes:
    effect: what happens.
    operations: which ones; by default all of the storage service, so no requests for tokens.
    name: a pattern that the object's name must contain; for a list its prefix.
    client: a pattern that the client's name must contain.
    bucket: a pattern that the bucket's name must contain.
    skip: how many matching requests pass first.
    times: how many it strikes at most.
    seconds: for how long after it was added it strikes.
    probability: of striking a request that matches.
    seed: of the generator that decides by that probability.
    only: a further condition.
    struck: how many requests it struck.
  """

  effect: Effect
  operations: Collection[str] | None = None
  name: str = ""
  client: str = ""
  bucket: str = ""
  skip: int = 0
  times: int | None = None
  seconds: float | None = None
  probability: float = 1
  seed: int = 0
  only: Callable[[Call], bool] | None = None
  struck: int = 0

  def __post_init__(self):
    self._random = random.Random(self.seed)
    self._passed = 0
    self._added = time.monotonic()

  def __str__(self):
    return f"{self.effect} on {','.join(sorted(self.operations or ['everything']))} {self.name}".strip()

  def _strikes(self, call: Call) -> bool:
    """Whether it strikes; called with the lock of `Faults` held."""
    if call.operation not in (STORAGE if self.operations is None else self.operations):
      return False
    names = (call.name, call.source)
    if not any(re.search(self.name, x) for x in names) or not re.search(self.bucket, call.bucket):
      return False
    if not re.search(self.client, call.client) or (self.only and not self.only(call)):
      return False
    if self.seconds is not None and time.monotonic() - self._added > self.seconds:
      return False
    if self._passed < self.skip:
      self._passed += 1
      return False
    if (self.times is not None and self.struck >= self.times) or self._random.random() >= self.probability:
      return False
    self.struck += 1
    return True


class Faults:
  """The rules in force. May be changed while requests are under way."""

  def __init__(self):
    self._faults: list[Fault] = []
    self._lock = threading.Lock()

  def add(self, *faults: Fault) -> Fault:
    """Puts rules in force from now on; returns the first."""
    with self._lock:
      for fault in faults:
        fault._added = time.monotonic()
        self._faults.append(fault)
    return faults[0]

  def remove(self, *faults: Fault) -> None:
    """Takes rules out of force, if they are in it."""
    with self._lock:
      self._faults = [x for x in self._faults if x not in faults]

  def clear(self) -> None:
    with self._lock:
      self._faults.clear()

  def all(self) -> list[Fault]:
    with self._lock:
      return list(self._faults)

  def strike(self, call: Call) -> Fault | None:
    """The first rule that strikes this request, if any."""
    with self._lock:
      return next((x for x in self._faults if x._strikes(call)), None)


def no_such_bucket(bucket: str = "") -> list[Fault]:
  """Buckets whose names contain the pattern do not exist."""
  return [Fault(status(404, "The specified bucket does not exist."), bucket=bucket)]


def no_leave_to_read() -> list[Fault]:
  """Reading, listing and describing objects is forbidden."""
  return [Fault(status(403), READS)]


def no_leave_to_write() -> list[Fault]:
  """Every change of an object is forbidden."""
  return [Fault(status(403), WRITES)]


def no_leave_to_see_bucket() -> list[Fault]:
  """As for a role without storage.buckets.get, for example Storage Object Admin."""
  return [Fault(status(403), {"bucket"})]


def expired_tokens(issued: int, refreshable: bool = True) -> list[Fault]:
  """Tokens up to number `issued` are refused with 401; without `refreshable` all are, and no new token is issued."""

  def is_old(call: Call) -> bool:
    number = call.request.token.rpartition("-")[2]
    return not refreshable or not number.isdigit() or int(number) <= issued

  refused = [Fault(status(401), only=is_old)]
  return refused if refreshable else [*refused, Fault(status(404), {"token"})]


def some_fail(share: float = 0.1, seed: int = 0, operations: Collection[str] | None = None) -> list[Fault]:
  """A share of all requests fails, a quarter of them by each of 503, 429, a reset and a cut body."""
  effects = (status(503), status(429), reset(), cut(100))
  part = share / len(effects)
  return [
    Fault(effect, operations, probability=part / (1 - i * part), seed=seed + i) for i, effect in enumerate(effects)
  ]
