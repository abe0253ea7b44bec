"""The requests of the clients, one entry each."""

import collections
import dataclasses
import re
import threading


@dataclasses.dataclass
class Record:
  """One answered request.

  Attributes:
    time: seconds since the epoch, when it arrived.
    client: "google-cloud-storage", "tensorflow", "tensorstore", "metadata" (a request for a token or the like) or
      the start of another User-Agent.
    operation: "list", "stat", "read", "upload", "compose", "rewrite", "update", "delete", "bucket", "token",
      "metadata", "batch" or "unknown".
    name: of the object, "" where there is none; for a list, its prefix.
    status: of HTTP; 0 if the connection was cut before an answer.
    bytes_up: of the request's body.
    bytes_down: of the answer's body, as far as it was sent.
    faults: descriptions of the faults that struck it.
  """

  time: float
  client: str
  operation: str
  bucket: str = ""
  name: str = ""
  status: int = 0
  bytes_up: int = 0
  bytes_down: int = 0
  seconds: float = 0
  faults: tuple[str, ...] = ()


class Records:
  """All requests since the last `clear`, in the order in which they were answered. Thread-safe."""

  def __init__(self):
    self._all: list[Record] = []
    self._lock = threading.Lock()

  def add(self, record: Record) -> None:
    with self._lock:
      self._all.append(record)

  def clear(self) -> None:
    with self._lock:
      self._all.clear()

  def all(
    self, operation: str | None = None, client: str | None = None, name: str = "", status: int | None = None
  ) -> list[Record]:
    """Those of one operation, client or status, and whose object's name matches the pattern `name`."""
    with self._lock:
      records = list(self._all)
    return [
      x
      for x in records
      if operation in (None, x.operation)
      and client in (None, x.client)
      and status in (None, x.status)
      and re.search(name, x.name)
    ]

  def count(self, operation: str | None = None, client: str | None = None, name: str = "", status: int | None = None):
    """How many requests `all` gives."""
    return len(self.all(operation, client, name, status))

  def by_operation(self, client: str | None = None) -> dict[str, int]:
    """The number of requests of each operation."""
    return dict(collections.Counter(x.operation for x in self.all(client=client)))

  def summary(self) -> dict:
    """Totals for people."""
    records = self.all()
    return {
      "requests": len(records),
      "by_operation": dict(collections.Counter(x.operation for x in records)),
      "by_client": dict(collections.Counter(x.client for x in records)),
      "by_status": dict(collections.Counter(str(x.status) for x in records)),
      "bytes_up": sum(x.bytes_up for x in records),
      "bytes_down": sum(x.bytes_down for x in records),
      "struck_by_faults": sum(bool(x.faults) for x in records),
    }
