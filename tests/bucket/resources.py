"""Objects, lists and buckets as the JSON API describes them."""

import base64
import datetime
import re

from tests.bucket import errors
from tests.bucket.objects import Object


def time_text(seconds: float) -> str:
  moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
  return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def etag(x: Object) -> str:
  return base64.b64encode(f"{x.generation}/{x.metageneration}".encode()).decode()


def describe(x: Object, base: str, quote) -> dict:
  """An object's resource. `base` is how the client reaches the server."""
  link = f"{base}/storage/v1/b/{x.bucket}/o/{quote(x.name)}"
  return {
    "kind": "storage#object",
    "id": f"{x.bucket}/{x.name}/{x.generation}",
    "selfLink": link,
    "mediaLink": f"{base}/download{link.removeprefix(base)}?generation={x.generation}&alt=media",
    "name": x.name,
    "bucket": x.bucket,
    "generation": str(x.generation),
    "metageneration": str(x.metageneration),
    "contentType": x.content_type or "application/octet-stream",
    "storageClass": "STANDARD",
    "size": str(len(x.data)),
    "crc32c": x.crc32c,
    "etag": etag(x),
    "timeCreated": time_text(x.created),
    "updated": time_text(x.updated),
    "timeStorageClassUpdated": time_text(x.created),
    **({"md5Hash": x.md5} if x.md5 else {}),
    **({"metadata": dict(x.metadata)} if x.metadata else {}),
    **({"componentCount": x.components} if x.components else {}),
  }


def describe_bucket(bucket: str, base: str) -> dict:
  return {
    "kind": "storage#bucket",
    "id": bucket,
    "selfLink": f"{base}/storage/v1/b/{bucket}",
    "name": bucket,
    "projectNumber": "1",
    "metageneration": "1",
    "location": "US-CENTRAL1",
    "locationType": "region",
    "storageClass": "STANDARD",
    "etag": "CAE=",
    "timeCreated": "2024-01-01T00:00:00.000Z",
    "updated": "2024-01-01T00:00:00.000Z",
    "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
  }


def storage_layout(bucket: str) -> dict:
  return {
    "kind": "storage#storageLayout",
    "bucket": bucket,
    "location": "US-CENTRAL1",
    "locationType": "region",
    "hierarchicalNamespace": {"enabled": False},
  }


def page(objects: list[Object], query: dict[str, str], page_size: int) -> tuple[list[Object], list[str], str]:
  """One page of a list: objects, prefixes (both count towards the page's size) and the next page's token."""
  prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
  start, end = query.get("startOffset", "").encode(), query.get("endOffset", "").encode()
  try:
    after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
    size = max(1, min(page_size, int(query.get("maxResults") or page_size)))
  except ValueError:
    raise errors.bad_request("Invalid argument.") from None
  items, prefixes, last = [], [], ""
  for x in objects:
    name = x.name.encode()
    if name < start or (end and name >= end):
      continue
    head, found, tail = x.name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
    entry = prefix + head + found if found else x.name
    # A token is the last entry. If that is a prefix, everything below it has been listed with it.
    if after and (entry.encode() <= after.encode()):
      continue
    is_new_prefix = bool(found) and entry not in prefixes[-1:]
    as_item = not found or (not tail and query.get("includeTrailingDelimiter", "").lower() == "true")
    if (is_new_prefix or not found) and len(items) + len(prefixes) >= size:
      return items, prefixes, base64.urlsafe_b64encode(last.encode()).decode()
    if is_new_prefix:
      prefixes.append(entry)
    if as_item:
      items.append(x)
    last = entry
  return items, prefixes, ""


def select(value: object, fields: str) -> object:
  """The parts of an answer that a `fields` parameter selects, for example "items(name,size),nextPageToken"."""
  tokens = re.findall(r"[^,()/\s]+|[,()/]", fields)

  def tree() -> dict:
    made: dict = {}
    while tokens and tokens[0] != ")":
      token = tokens.pop(0)
      if token == ",":
        continue
      inner = made.setdefault(token, {})
      while tokens and tokens[0] == "/":
        tokens.pop(0)
        inner = inner.setdefault(tokens.pop(0), {})
      if tokens and tokens[0] == "(":
        tokens.pop(0)
        inner.update(tree())
        del tokens[:1]
    return made

  def keep(part: object, wanted: dict) -> object:
    if not wanted or "*" in wanted:
      return part
    if isinstance(part, list):
      return [keep(x, wanted) for x in part]
    if isinstance(part, dict):
      return {k: keep(v, wanted[k]) for k, v in part.items() if k in wanted}
    return part

  return keep(value, tree())
