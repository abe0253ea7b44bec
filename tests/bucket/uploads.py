"""The three ways to upload: media, multipart and resumable."""

import dataclasses
import json
import re
import secrets
import threading

from tests.bucket import errors
from tests.bucket.messages import Answer, Request
from tests.bucket.objects import Conditions, Object, Store, crc32c, md5

UNIT_BYTES = 256 * 1024  # the service keeps only whole units of a part, except of the last part


@dataclasses.dataclass
class Session:
  """A resumable upload in progress."""

  bucket: str
  name: str
  conditions: Conditions
  described: dict
  total: int | None
  data: bytearray = dataclasses.field(default_factory=bytearray)
  made: Object | None = None
  lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def parse_multipart(request: Request) -> tuple[dict, bytes, str]:
  """The description, the bytes and their content type of a multipart/related body."""
  boundary = re.search(r'boundary="?([^";]+)"?', request.headers.get("Content-Type", ""))
  if not boundary:
    raise errors.bad_request("Missing multipart boundary.")
  parts = (b"\r\n" + request.body).split(b"\r\n--" + boundary[1].encode())
  if len(parts) != 4 or not parts[3].startswith(b"--"):
    raise errors.bad_request("Malformed multipart body.")
  description = parts[1].lstrip(b"\r\n").partition(b"\r\n\r\n")[2]
  head, _, data = parts[2].removeprefix(b"\r\n").partition(b"\r\n\r\n")
  kind = re.search(rb"(?i)content-type:\s*([^\r\n]+)", head)
  try:
    return json.loads(description), data, kind[1].decode() if kind else ""
  except ValueError:
    raise errors.Refusal(400, "parseError", "Parse Error") from None


def check_sums(data: bytes, described: dict, request: Request | None = None) -> None:
  """Raises 400 if a checksum that the client declared does not match the bytes that arrived."""
  named = {"crc32c": described.get("crc32c"), "md5": described.get("md5Hash")}
  for part in (request.headers.get("X-Goog-Hash", "") if request else "").split(","):
    kind, _, value = part.strip().partition("=")
    if value:
      named[kind] = value
  for kind, label, function in (("crc32c", "CRC32C", crc32c), ("md5", "MD5 hash", md5)):
    if named.get(kind) and named[kind] != function(data):
      raise errors.bad_request(
        f'Provided {label} "{named[kind]}" doesn\'t match calculated {label} "{function(data)}".'
      )


class Uploads:
  """The resumable uploads in progress."""

  def __init__(self, store: Store):
    self._store = store
    self._sessions: dict[str, Session] = {}

  def clear(self) -> None:
    self._sessions.clear()

  def target(self, upload: str) -> tuple[str, str]:
    """Bucket and name that an upload writes; two empty ones if there is no such upload."""
    session = self._sessions.get(upload)
    return (session.bucket, session.name) if session else ("", "")

  def start(self, request: Request, bucket: str, name: str, conditions: Conditions) -> str:
    """Begins a resumable upload and returns its id."""
    self._store.check_write(bucket, name, conditions)
    described = request.json()
    described.setdefault("contentType", request.headers.get("X-Upload-Content-Type"))
    length = request.headers.get("X-Upload-Content-Length")
    upload = secrets.token_urlsafe(24)
    self._sessions[upload] = Session(bucket, name, conditions, described, int(length) if length else None)
    return upload

  def abandon(self, upload: str) -> None:
    if self._sessions.pop(upload, None) is None:
      raise errors.no_upload()

  def take(self, upload: str, request: Request, at_most: int | None = None) -> Object | Answer:
    """Takes a part, or a query for the upload's progress; returns the object once it is complete, otherwise a 308.

    Args:
      at_most: how many bytes of the part arrive before the connection breaks.
    """
    session = self._sessions.get(upload)
    if session is None:
      raise errors.no_upload()
    with session.lock:
      if session.made:
        return session.made
      start, total, body = self._parse_range(request, session)
      if at_most is not None:
        body = body[:at_most]
      if start > len(session.data):
        raise errors.Refusal(503, "backendError", "Invalid request. Bytes before this part were never received.")
      new = body[len(session.data) - start :]
      whole = total is not None and len(session.data) + len(new) >= total
      if not whole:
        new = new[: (len(session.data) + len(new)) // UNIT_BYTES * UNIT_BYTES - len(session.data)]
      session.data += new
      if not whole:
        had = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        return Answer(308, b"", {**had, "X-GUploader-UploadID": upload})
      data = bytes(session.data)
      check_sums(data, session.described, request)
      session.made = self._store.put(
        session.bucket, session.name, data, session.conditions, session.described.get("contentType"),
        session.described.get("metadata"),
      )  # fmt: skip
      session.data.clear()
      return session.made

  def _parse_range(self, request: Request, session: Session) -> tuple[int, int | None, bytes]:
    """Where the part begins, the object's whole size if the client knows it, and the part."""
    text = request.headers.get("Content-Range")
    if text is None:
      return 0, len(request.body), request.body
    form = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", text.strip())
    if not form:
      raise errors.bad_request(f"Failed to parse Content-Range header: {text}")
    total = session.total if form[3] == "*" else int(form[3])
    if form[1] is None:
      # A query; or the end of an upload whose bytes have all arrived.
      return len(session.data), total, b""
    if int(form[2]) - int(form[1]) + 1 != len(request.body):
      raise errors.bad_request(f"The Content-Range {text} does not fit a body of {len(request.body)} bytes.")
    return int(form[1]), total, request.body
