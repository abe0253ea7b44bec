"""The parts of the storage service's JSON and XML interfaces that the three client libraries use."""

import dataclasses
import email
import email.utils
import re
import urllib.parse

from tests.bucket import errors, messages, resources, uploads
from tests.bucket.messages import Answer, Call, Request
from tests.bucket.objects import Conditions, Object, Store

CONDITIONS = {  # field of Conditions: parameter of the JSON API, header of the XML API
  "generation": ("generation", None),
  "generation_match": ("ifGenerationMatch", "x-goog-if-generation-match"),
  "generation_not_match": ("ifGenerationNotMatch", None),
  "metageneration_match": ("ifMetagenerationMatch", "x-goog-if-metageneration-match"),
  "metageneration_not_match": ("ifMetagenerationNotMatch", None),
}


def quote(text: str) -> str:
  return urllib.parse.quote(text, safe="")


def conditions_of(request: Request, source: bool = False) -> Conditions:
  """Generation and preconditions of a request; those of a rewrite's source with `source`."""
  found = {}
  for field, (parameter, header) in CONDITIONS.items():
    if source:
      parameter = "sourceGeneration" if field == "generation" else "ifSource" + parameter.removeprefix("if")
    value = request.query.get(parameter) or (None if source or not header else request.headers.get(header))
    if value is not None:
      if not value.isdigit():
        raise errors.bad_request(f"Invalid value for {parameter}: {value}")
      found[field] = int(value)
  return Conditions(**found)


class Api:
  """Answers requests about objects and buckets.

  Attributes:
    page_size: the most entries of a page of a list.
    public: answer requests without a token, too.
  """

  def __init__(self, store: Store):
    self.store, self.uploads = store, uploads.Uploads(store)
    self.page_size, self.public = 1000, False

  def classify(self, request: Request) -> Call:
    """Classifies a request; never raises."""
    parts = [urllib.parse.unquote(x) for x in request.path.split("/")[1:]]
    upload = request.query.get("upload_id", "")
    match parts:
      case ["batch", *_]:
        return Call(request, "batch")
      case ["upload", "storage", "v1", "b", bucket, "o"]:
        name = request.query.get("name", "")
        if upload:
          bucket, name = self.uploads.target(upload)
        elif not name:
          name = self._described_name(request)
        return Call(request, "upload", bucket, name, upload=upload)
      case ["download", "storage", "v1", "b", bucket, "o", name]:
        return Call(request, "read", bucket, name, "media")
      case ["storage", "v1", "b"]:
        return Call(request, "bucket")
      case ["storage", "v1", "b", bucket, "o"]:
        return Call(request, "list", bucket, request.query.get("prefix", ""))
      case ["storage", "v1", "b", bucket, "o", name]:
        is_read = request.method == "GET" and request.query.get("alt") == "media"
        verbs = {"GET": "stat", "DELETE": "delete", "PATCH": "update", "PUT": "update"}
        operation = "read" if is_read else verbs.get(request.method, "unknown")
        return Call(request, operation, bucket, name, "media" if is_read else "json")
      case ["storage", "v1", "b", bucket, "o", name, "compose"]:
        return Call(request, "compose", bucket, name)
      case ["storage", "v1", "b", bucket, "o", name, "rewriteTo" | "copyTo", "b", to_bucket, "o", to]:
        return Call(request, "rewrite", to_bucket, to, source=f"{bucket}/{name}")
      case ["storage", "v1", "b", bucket, *_]:
        return Call(request, "bucket", bucket)
      case [bucket, *name]:
        name = "/".join(name)
        operation = {"GET": "read" if name else "list", "HEAD": "stat", "PUT": "upload", "DELETE": "delete"}
        return Call(request, operation.get(request.method, "unknown"), bucket, name, "xml")
    return Call(request, "unknown")

  def answer(self, call: Call, at_most: int | None = None) -> Answer:
    """Answers a request. `at_most` limits how many bytes of a part of a resumable upload arrive."""
    try:
      if not call.request.token and not self.public:
        raise errors.anonymous(call.permission)
      return getattr(self, f"_{call.operation}")(call, at_most)
    except errors.Refusal as refusal:
      return messages.of_refusal(refusal, call.style)

  def _described_name(self, request: Request) -> str:
    try:
      if request.query.get("uploadType") == "multipart":
        return uploads.parse_multipart(request)[0].get("name", "")
      return request.json().get("name", "")
    except errors.Refusal:
      return ""

  def _resource(self, call: Call, x: Object) -> Answer:
    value = resources.select(resources.describe(x, call.request.base, quote), call.request.query.get("fields", ""))
    return messages.as_json(value, headers={"ETag": resources.etag(x)})

  def _unknown(self, call: Call, _) -> Answer:
    raise errors.Refusal(404, "notFound", f"Not Found: {call.request.method} {call.request.path}")

  def _bucket(self, call: Call, _) -> Answer:
    request, base = call.request, call.request.base
    if not call.bucket and request.method == "GET":
      found = [resources.describe_bucket(x, base) for x in self.store.buckets()]
      return messages.as_json({"kind": "storage#buckets", "items": found})
    if not call.bucket:
      bucket = request.json().get("name", "")
      if bucket in self.store.buckets():
        raise errors.Refusal(409, "conflict", "Your previous request to create the named bucket succeeded.")
      if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
        raise errors.bad_request(f"Invalid bucket name: '{bucket}'")
      self.store.add_bucket(bucket)
      return messages.as_json(resources.describe_bucket(bucket, base))
    self.store.check_bucket(call.bucket)
    if request.path.endswith("/storageLayout"):
      return messages.as_json(resources.storage_layout(call.bucket))
    if request.path.endswith("/testPermissions"):
      asked = urllib.parse.unquote(request.query.get("permissions", ""))
      return messages.as_json({"kind": "storage#testIamPermissionsResponse", "permissions": [asked]})
    value = resources.select(resources.describe_bucket(call.bucket, base), request.query.get("fields", ""))
    return messages.as_json(value)

  def _list(self, call: Call, _) -> Answer:
    request = call.request
    if call.style == "xml":
      return self._unknown(call, _)
    objects = self.store.listing(call.bucket, call.name)
    items, prefixes, following = resources.page(objects, request.query, self.page_size)
    value = {
      "kind": "storage#objects",
      **({"nextPageToken": following} if following else {}),
      **({"prefixes": prefixes} if prefixes else {}),
      **({"items": [resources.describe(x, request.base, quote) for x in items]} if items else {}),
    }
    return messages.as_json(resources.select(value, request.query.get("fields", "")))

  def _stat(self, call: Call, _) -> Answer:
    x = self.store.get(call.bucket, call.name, conditions_of(call.request))
    if call.style == "xml":
      return Answer(200, x.data, self._media_headers(x))
    return self._resource(call, x)

  def _media_headers(self, x: Object) -> dict[str, str]:
    sums = f"crc32c={x.crc32c}" + (f",md5={x.md5}" if x.md5 else "")
    return {
      "Content-Type": x.content_type or "application/octet-stream",
      "Accept-Ranges": "bytes",
      "ETag": f'"{resources.etag(x)}"',
      "Last-Modified": email.utils.formatdate(x.updated, usegmt=True),
      "Cache-Control": "private, max-age=0",
      "x-goog-generation": str(x.generation),
      "x-goog-metageneration": str(x.metageneration),
      "x-goog-hash": sums,
      "x-goog-stored-content-encoding": "identity",
      "x-goog-stored-content-length": str(len(x.data)),
      "x-goog-storage-class": "STANDARD",
    }

  def _read(self, call: Call, _) -> Answer:
    x = self.store.get(call.bucket, call.name, conditions_of(call.request))
    size, headers = len(x.data), self._media_headers(x)
    form = re.fullmatch(r"bytes=(\d*)-(\d*)", call.request.headers.get("Range", "").strip())
    if not form or not (form[1] or form[2]):
      return Answer(200, x.data, headers)
    first = int(form[1]) if form[1] else max(0, size - int(form[2]))
    last = min(size - 1, int(form[2])) if form[1] and form[2] else size - 1
    if first > last:
      refused = messages.of_refusal(
        errors.Refusal(416, "requestedRangeNotSatisfiable", "Requested range not satisfiable"), call.style
      )
      return dataclasses.replace(refused, headers={**refused.headers, "Content-Range": f"bytes */{size}"})
    return Answer(206, x.data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})

  def _upload(self, call: Call, at_most: int | None) -> Answer:
    request, kind = call.request, call.request.query.get("uploadType")
    conditions = conditions_of(request)
    if call.style == "xml":
      uploads.check_sums(request.body, {}, request)
      x = self.store.put(call.bucket, call.name, request.body, conditions, request.headers.get("Content-Type"))
      return Answer(200, b"", self._media_headers(x))
    if call.upload:
      if request.method == "DELETE":
        self.uploads.abandon(call.upload)
        return Answer(499)
      taken = self.uploads.take(call.upload, request, at_most)
      return taken if isinstance(taken, Answer) else self._resource(call, taken)
    if request.method not in ("POST", "PUT") or not call.name:
      raise errors.Refusal(400, "required", "Required") if call.bucket in self.store.buckets() else errors.no_bucket()
    if kind == "resumable":
      upload = self.uploads.start(request, call.bucket, call.name, conditions)
      where = f"{request.base}/upload/storage/v1/b/{quote(call.bucket)}/o?uploadType=resumable&upload_id={upload}"
      return Answer(200, b"", {"Location": where, "X-GUploader-UploadID": upload})
    if kind == "multipart":
      described, data, content_type = uploads.parse_multipart(request)
    else:
      described, data, content_type = {}, request.body, request.headers.get("Content-Type")
    uploads.check_sums(data, described, request)
    content_type = described.get("contentType") or content_type
    return self._resource(
      call, self.store.put(call.bucket, call.name, data, conditions, content_type, described.get("metadata"))
    )

  def _update(self, call: Call, _) -> Answer:
    described = call.request.json()
    kind, metadata = described.get("contentType"), described.get("metadata")
    return self._resource(call, self.store.update(call.bucket, call.name, conditions_of(call.request), kind, metadata))

  def _delete(self, call: Call, _) -> Answer:
    self.store.delete(call.bucket, call.name, conditions_of(call.request))
    return Answer(204)

  def _compose(self, call: Call, _) -> Answer:
    body = call.request.json()
    sources = []
    for x in body.get("sourceObjects", []):
      wanted = {"generation": x.get("generation"), **x.get("objectPreconditions", {})}
      generation, match = (
        int(v) if v is not None else None for v in (wanted["generation"], wanted.get("ifGenerationMatch"))
      )
      sources.append((x["name"], Conditions(generation=generation, generation_match=match)))
    destination = body.get("destination", {})
    made = self.store.compose(
      call.bucket, call.name, sources, conditions_of(call.request), destination.get("contentType"),
      destination.get("metadata"), delete_sources=body.get("deleteSourceObjects") is True,
    )  # fmt: skip
    return self._resource(call, made)

  def _rewrite(self, call: Call, _) -> Answer:
    source_bucket, _, source = call.source.partition("/")
    changes = call.request.json()
    made = self.store.copy(
      (source_bucket, source), (call.bucket, call.name), conditions_of(call.request, source=True),
      conditions_of(call.request), changes,
    )  # fmt: skip
    if "/copyTo/" in call.request.path:
      return self._resource(call, made)
    size = str(len(made.data))
    resource = resources.describe(made, call.request.base, quote)
    value = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
    return messages.as_json({**value, "resource": resource})

  def _batch(self, call: Call, _) -> Answer:
    """Each part is a request, whose answer is a part of the answer."""
    request = call.request
    head = f"Content-Type: {request.headers.get('Content-Type', '')}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + request.body).get_payload()
    if not isinstance(parts, list):
      raise errors.bad_request("Failed to parse batch request.")
    body = b""
    for part in parts:
      line, _, rest = part.get_payload(decode=True).lstrip().partition(b"\n")
      method, target = line.decode().split()[:2]
      inner = email.message_from_bytes(rest)
      if "Authorization" not in inner:
        inner["Authorization"] = request.headers.get("Authorization", "")
      data = (inner.get_payload(decode=True) or b"").strip()
      made = self.answer(self.classify(Request.of(method, target, inner, data, request.base)))
      number = part.get("Content-ID", "").strip("<>")
      lines = [f"Content-ID: <response-{number}>", "Content-Type: application/http", "", f"HTTP/1.1 {made.status} -"]
      lines += [f"{k}: {v}" for k, v in made.headers.items()] + [f"Content-Length: {len(made.body)}", "", ""]
      body += b"--batch_answer\r\n" + "\r\n".join(lines).encode() + made.body + b"\r\n"
    return Answer(200, body + b"--batch_answer--\r\n", {"Content-Type": 'multipart/mixed; boundary="batch_answer"'})
