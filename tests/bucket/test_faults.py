"""Each fault strikes google-cloud-storage as the real service's would."""

import contextlib
import time
import urllib.request

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from tests.bucket import faults
from tests.bucket.faults import Fault

QUICK = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.1).with_timeout(20)


@pytest.fixture
def remote(here):
  """The bucket as google-cloud-storage sees it."""
  with contextlib.closing(storage.Client()) as client:
    yield client.bucket(here.name)


@pytest.fixture
def blob(remote, here):
  """An existing object of 1000 bytes."""
  here.put("a", b"0123456789" * 100)
  return remote.blob("a")


@pytest.mark.parametrize(
  "code, error, words",
  [
    (503, exceptions.ServiceUnavailable, "internal error"),
    (500, exceptions.InternalServerError, "internal error"),
    (429, exceptions.TooManyRequests, "rate limit"),
    (403, exceptions.Forbidden, "does not have storage.objects.get access"),
    (404, exceptions.NotFound, "No such object"),
    (412, exceptions.PreconditionFailed, "pre-conditions"),
  ],
)
def test_status(blob, here, code, error, words):
  fault = here.faults.add(Fault(faults.status(code), {"read", "stat"}, times=2))
  with pytest.raises(error, match=words):
    blob.download_as_bytes(retry=None)
  with pytest.raises(error, match=words):
    blob.reload(retry=None)
  assert fault.struck == here.records.count("read", status=code) + here.records.count("stat", status=code) == 2
  assert len(blob.download_as_bytes(retry=None)) == 1000


def test_reset_does_nothing_and_a_lost_answer_hides_what_was_done(remote, here):
  for effect in (faults.reset(), faults.lose_answer()):
    here.faults.add(Fault(effect, {"upload"}, times=1))
  for name in ("reset", "lost"):
    with pytest.raises(requests.exceptions.ConnectionError):
      remote.blob(name).upload_from_string(b"1", retry=None)
  assert here.names() == ["lost"]
  assert here.records.count("upload", status=0) == 2


def test_cut_answer(blob, here):
  fault = here.faults.add(Fault(faults.cut(500), {"read"}, times=1))
  with pytest.raises((requests.exceptions.RequestException, exceptions.GoogleAPICallError)):
    blob.download_as_bytes(retry=None)
  assert fault.struck == 1
  assert here.records.all("read")[0].bytes_down == 500
  here.faults.add(Fault(faults.cut(500), {"read"}, times=1))
  assert blob.download_as_bytes(retry=QUICK) == b"0123456789" * 100


def test_corrupted_answer_is_noticed(blob, here):
  here.faults.add(Fault(faults.corrupt(at=7), {"read"}))
  with pytest.raises(DataCorruption, match="(?i)crc32c"):
    blob.download_as_bytes(checksum="crc32c")


def test_slow_answers(blob, here):
  def seconds() -> float:
    started = time.monotonic()
    assert len(blob.download_as_bytes()) == 1000
    return time.monotonic() - started

  assert seconds() < 0.2
  slow = here.faults.add(Fault(faults.slow(0.3), {"read"}))
  assert 0.3 < seconds() < 0.6
  here.faults.remove(slow)
  here.faults.add(Fault(faults.trickle(2000), {"read"}))
  assert 0.4 < seconds() < 0.9
  here.faults.clear()
  here.server.latency = 0.1
  assert 0.1 < seconds() < 0.3


def test_which_requests_and_when(remote, here):
  for name in ("metrics.jsonl", "config.json"):
    here.put(name, b"1")

  def answers(name: str, count: int) -> str:
    found = ""
    for _ in range(count):
      with contextlib.suppress(exceptions.ServiceUnavailable):
        found += remote.blob(name).download_as_bytes(retry=None).decode()
        continue
      found += "x"
    return found

  here.faults.add(Fault(faults.status(503), {"read"}, name="metrics", client="google", skip=1, times=2))
  assert (answers("config.json", 2), answers("metrics.jsonl", 5)) == ("11", "1xx11")
  here.faults.add(Fault(faults.status(503), seconds=0.2))
  assert answers("config.json", 1) == "x"
  time.sleep(0.2)
  assert answers("config.json", 1) == "1"
  patterns = []
  for _ in range(2):
    here.faults.clear()
    here.faults.add(Fault(faults.status(503), probability=0.5, seed=3))
    patterns.append(answers("config.json", 20))
  assert patterns[0] == patterns[1]
  assert 3 < patterns[0].count("x") < 17


def test_expired_tokens(blob, here):
  blob.reload()
  old = here.server.metadata.issued
  refused = here.expire_tokens()
  assert len(blob.download_as_bytes()) == 1000
  assert here.server.metadata.issued > old
  assert refused[0].struck >= 1
  here.expire_tokens(refreshable=False)
  with pytest.raises((GoogleAuthError, exceptions.Unauthorized)):
    blob.download_as_bytes(retry=QUICK.with_timeout(1))


def test_no_credentials(blob, here):
  with contextlib.closing(storage.Client.create_anonymous_client()) as client:
    anonymous = client.bucket(here.name).blob("a")
    with pytest.raises(GoogleAuthError, match="Anonymous credentials cannot be refreshed"):
      anonymous.download_as_bytes()
    assert here.records.count("read", status=401) == 1
    here.server.api.public = True
    assert len(anonymous.download_as_bytes()) == 1000


def test_ready_made_faults(remote, blob, here):
  for made, allowed, refused in (
    (faults.no_leave_to_read(), [remote.reload], [blob.reload, lambda: list(remote.list_blobs())]),
    (faults.no_leave_to_write(), [blob.reload], [blob.delete, lambda: remote.blob("b").upload_from_string(b"")]),
    (faults.no_leave_to_see_bucket(), [blob.reload], [remote.reload]),
  ):
    here.faults.clear()
    here.faults.add(*made)
    for ask in allowed:
      ask()
    for ask in refused:
      with pytest.raises(exceptions.Forbidden):
        ask()
  here.faults.clear()
  here.faults.add(*faults.no_such_bucket())
  for ask in (
    blob.reload,
    remote.reload,
    lambda: list(remote.list_blobs()),
  ):
    with pytest.raises(exceptions.NotFound, match="The specified bucket does not exist"):
      ask()


def test_a_tenth_of_requests_fails(remote, blob, here):
  mix = faults.some_fail(0.1, seed=1)
  here.faults.add(*mix)
  for i in range(100):
    assert len(blob.download_as_bytes(retry=QUICK)) == 1000
    remote.blob(f"b/{i}").upload_from_string(b"x" * 1000, retry=QUICK)
  assert len(here.names("b/")) == 100
  assert all(x.struck for x in mix)
  assert 10 < sum(x.struck for x in mix) < 35


def test_orders_by_http(blob, here):
  def order(path: str, body: bytes | None = None, method: str | None = None) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{here.server.port}/control/{path}", body, method=method)
    with urllib.request.urlopen(request) as answer:
      return answer.read()

  order("faults", b'{"effect": "status", "number": 403, "operations": ["read"]}')
  with pytest.raises(exceptions.Forbidden):
    blob.download_as_bytes()
  assert b'"struck": 1' in order("faults")
  assert b'"read": 1' in order("requests")
  order("faults/1", method="DELETE")
  assert len(blob.download_as_bytes()) == 1000
  order("settings", b'{"latency": 0.01}')
  assert here.server.latency == 0.01
  with pytest.raises(urllib.error.HTTPError):
    order("faults", b'{"effect": "earthquake"}')
