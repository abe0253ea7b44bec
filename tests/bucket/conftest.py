"""Fixtures: an emulated bucket, for this process and for the commands that it runs.

There is one server for each of pytest's processes, because google-auth, TensorFlow and TensorStore read their variables
once per process. Each test has a bucket with a new name, because TensorFlow caches file properties for some seconds.
"""

import itertools
import sys

import pytest

from shufflenet_jax.storage import client
from tests.bucket.bucket import UNSET, EmulatedBucket
from tests.bucket.server import Server

numbers = itertools.count(1)


def pytest_collection_modifyitems(items):
  for item in items:
    if item.path.parent.name == "bucket":
      item.add_marker("bucket")


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory):
  server = Server(tmp_path_factory.mktemp("certificates")).start()
  yield server
  server.stop()


@pytest.fixture
def bucket(bucket_server):
  """A bucket that exists and is empty; without faults, delays or records."""
  bucket_server.reset()
  yield EmulatedBucket(bucket_server, f"test-bucket-{next(numbers)}")
  bucket_server.reset()


@pytest.fixture
def here(bucket, monkeypatch):
  """The bucket, for clients in this process."""
  for name in UNSET:
    monkeypatch.delenv(name, raising=False)
  for name, value in bucket.variables().items():
    monkeypatch.setenv(name, value)
  auth = sys.modules.get("google.auth.compute_engine._metadata")
  if auth:  # already imported, when the variable was not set
    monkeypatch.setattr(auth, "_GCE_METADATA_HOST", f"127.0.0.1:{bucket.server.port}")
  return bucket


@pytest.fixture
def impatient(monkeypatch):
  """Retries transient failures for only two seconds."""
  monkeypatch.setattr(client, "PATIENCE_SECONDS", 2)
  monkeypatch.setattr(client, "EXPIRED_PATIENCE_SECONDS", 1)
