"""The error answers of the storage service, worded like the real ones."""

import json
from xml.sax import saxutils


class Refusal(Exception):
  """A request that is answered with an error.

  Attributes:
    status: the HTTP status.
    reason: the machine-readable reason of the JSON API, for example "notFound".
    message: the sentence for people.
  """

  def __init__(self, status: int, reason: str, message: str):
    super().__init__(message)
    self.status, self.reason, self.message = status, reason, message


XML_CODES = {
  400: "InvalidArgument",
  401: "AuthenticationRequired",
  403: "AccessDenied",
  404: "NoSuchKey",
  412: "PreconditionFailed",
  416: "InvalidRange",
  429: "SlowDown",
  500: "InternalError",
  503: "ServiceUnavailable",
}


def bad_request(message: str) -> Refusal:
  return Refusal(400, "invalid", message)


def no_bucket() -> Refusal:
  return Refusal(404, "notFound", "The specified bucket does not exist.")


def no_object(bucket: str, name: str) -> Refusal:
  return Refusal(404, "notFound", f"No such object: {bucket}/{name}")


def no_upload() -> Refusal:
  return Refusal(404, "notFound", "No such upload session.")


def precondition_failed() -> Refusal:
  return Refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


def not_modified() -> Refusal:
  return Refusal(304, "notModified", "Not Modified")


def too_fast(bucket: str, name: str) -> Refusal:
  return Refusal(
    429,
    "rateLimitExceeded",
    f"The object {bucket}/{name} exceeded the rate limit for object mutation operations (create, update, and delete). "
    "Please reduce your request rate. See https://cloud.google.com/storage/docs/gcs429.",
  )


def anonymous(permission: str) -> Refusal:
  return Refusal(
    401,
    "required",
    f"Anonymous caller does not have {permission} access to the Google Cloud Storage resource. "
    f"Permission '{permission}' denied on resource (or it may not exist).",
  )


def forbidden(permission: str) -> Refusal:
  return Refusal(
    403,
    "forbidden",
    f"robot@test.iam.gserviceaccount.com does not have {permission} access to the Google Cloud Storage resource. "
    f"Permission '{permission}' denied on resource (or it may not exist).",
  )


def of_status(status: int, permission: str, bucket: str, name: str) -> Refusal:
  """The error answer for a status that a fault injects."""
  if status == 403:
    return forbidden(permission)
  if status == 429:
    return too_fast(bucket, name)
  if status == 404:
    return no_object(bucket, name) if name else no_bucket()
  if status == 412:
    return precondition_failed()
  reason, message = {
    401: ("authError", "Invalid Credentials"),
    408: ("uploadBrokenConnection", "The request timed out."),
    410: ("gone", "The upload session is gone."),
    500: ("backendError", "We encountered an internal error. Please try again."),
    502: ("backendError", "Bad Gateway"),
    503: ("backendError", "We encountered an internal error. Please try again."),
    504: ("backendError", "Gateway Timeout"),
  }.get(status, ("invalid", f"Status {status}"))
  return Refusal(status, reason, message)


def as_json(refusal: Refusal) -> bytes:
  """The body of an error of the JSON API."""
  detail = {"message": refusal.message, "domain": "global", "reason": refusal.reason}
  if refusal.status == 429:
    detail["domain"] = "usageLimits"
  elif refusal.status == 412:
    detail |= {"locationType": "header", "location": "If-Match"}
  elif refusal.status == 401:
    detail |= {"locationType": "header", "location": "Authorization"}
  error = {"code": refusal.status, "message": refusal.message, "errors": [detail]}
  return json.dumps({"error": error}, indent=2).encode()


def as_xml(refusal: Refusal) -> bytes:
  """The body of an error of the XML API."""
  bucket_is_missing = refusal.status == 404 and "bucket" in refusal.message and "object" not in refusal.message
  code = "NoSuchBucket" if bucket_is_missing else XML_CODES.get(refusal.status, "InternalError")
  message = "The specified key does not exist." if code == "NoSuchKey" else refusal.message
  details = f"<Details>{saxutils.escape(refusal.message)}</Details>"
  return (
    f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
    f"<Message>{saxutils.escape(message)}</Message>{details}</Error>"
  ).encode()
