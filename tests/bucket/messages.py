"""A request that was read from the socket, and the answer to it."""

import dataclasses
import email.message
import json
import urllib.parse
from collections.abc import Mapping

from tests.bucket import errors

PERMISSIONS = {
  "list": "storage.objects.list",
  "stat": "storage.objects.get",
  "read": "storage.objects.get",
  "upload": "storage.objects.create",
  "compose": "storage.objects.create",
  "rewrite": "storage.objects.create",
  "update": "storage.objects.update",
  "delete": "storage.objects.delete",
  "bucket": "storage.buckets.get",
  "batch": "storage.objects.get",
  "unknown": "storage.objects.get",
}


@dataclasses.dataclass
class Request:
  """One HTTP request.

  Attributes:
    path: as sent, with its percent signs and without the query.
    query: decoded; the last value of each key.
    base: scheme and host by which the client reached the server, for links in answers.
  """

  method: str
  path: str
  query: dict[str, str]
  headers: email.message.Message
  body: bytes
  base: str

  @classmethod
  def of(cls, method: str, target: str, headers: email.message.Message, body: bytes, base: str) -> "Request":
    """Parses the target of a request line, which is a whole URL if the client uses this server as a proxy."""
    url = urllib.parse.urlsplit(target)
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    return cls(method, url.path, query, headers, body, base)

  @property
  def client(self) -> str:
    """The client library that sent the request."""
    agent = self.headers.get("User-Agent", "")
    x_client = self.headers.get("X-Goog-Api-Client", "")
    if "tensorstore" in agent:
      return "tensorstore"
    if "gcloud-python" in agent or "gccl/" in x_client:
      return "google-cloud-storage"
    return "tensorflow" if agent.startswith(("TSL", "TensorFlow")) else agent.split("/")[0] or "unnamed"

  @property
  def token(self) -> str:
    """The access token; "" if there is none."""
    return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

  def json(self) -> dict:
    """The body's JSON object; raises 400 if it is not one."""
    try:
      value = json.loads(self.body or b"{}")
    except ValueError:
      raise errors.Refusal(400, "parseError", "Parse Error") from None
    if not isinstance(value, dict):
      raise errors.Refusal(400, "parseError", "Parse Error")
    return value


@dataclasses.dataclass
class Answer:
  """One HTTP answer. Content-Length is added when it is sent."""

  status: int = 200
  body: bytes = b""
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Call:
  """What a request asks for.

  Attributes:
    operation: see `record.Record`.
    style: how errors are worded: "json", "media" (plain text) or "xml".
    source: the other object of a rewrite, as "bucket/name".
    upload: the id of the resumable upload that the request continues, "" for any other.
  """

  request: Request
  operation: str
  bucket: str = ""
  name: str = ""
  style: str = "json"
  source: str = ""
  upload: str = ""

  @property
  def client(self) -> str:
    return "metadata" if self.operation in ("token", "metadata") else self.request.client

  @property
  def permission(self) -> str:
    return PERMISSIONS.get(self.operation, "")


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
  return Answer(
    status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=UTF-8", **(headers or {})}
  )


def of_refusal(refusal: errors.Refusal, style: str) -> Answer:
  """The error in the form that the client expects from that part of the service."""
  headers = {}
  if refusal.status == 401:
    headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/"'
  if refusal.status in (204, 304):
    return Answer(refusal.status, b"", headers)
  if style == "xml":
    return Answer(refusal.status, errors.as_xml(refusal), {"Content-Type": "application/xml; charset=UTF-8", **headers})
  if style == "media":
    return Answer(refusal.status, refusal.message.encode(), {"Content-Type": "text/html; charset=UTF-8", **headers})
  return Answer(refusal.status, errors.as_json(refusal), {"Content-Type": "application/json; charset=UTF-8", **headers})
