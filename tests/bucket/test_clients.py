"""The three client libraries, as released, against the emulated bucket."""

import contextlib
import json
import subprocess
import sys
import textwrap

import pytest
from google.api_core import exceptions
from google.cloud import storage

from tests.bucket.faults import WRITES, Fault, cut, reset, status
from tests.commands import ROOT


@pytest.fixture
def remote(here):
  """The bucket as google-cloud-storage sees it."""
  with contextlib.closing(storage.Client()) as client:
    yield client.bucket(here.name)


def run(bucket, program: str, fixed_token: bool = True) -> dict:
  """Runs a program that has the bucket's URL as `url` and prints one JSON object in its last line."""
  program = f"import json\nurl = {bucket.url!r}\n" + textwrap.dedent(program)
  quick = {"TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu", "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "10000"}
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, env=bucket.environment(fixed_token, **quick), capture_output=True,
    text=True, timeout=60,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_google_client_writes_and_reads(remote, here):
  blob = remote.blob("folder/a name with spaces & signs+%.bin")
  blob.upload_from_string(b"0123456789", checksum="crc32c")
  assert here.get(blob.name) == b"0123456789"
  assert blob.download_as_bytes() == b"0123456789"
  assert blob.download_as_bytes(start=2, end=4) == b"234"
  assert blob.download_as_bytes(start=7) == b"789"
  assert (blob.size, blob.bucket.name) == (10, here.name)
  read = remote.get_blob(blob.name)
  assert (read.generation, read.crc32c, read.md5_hash) == (blob.generation, blob.crc32c, blob.md5_hash)
  blob.delete()
  assert remote.get_blob(blob.name) is None
  with pytest.raises(exceptions.NotFound, match="No such object"):
    blob.delete()
  with pytest.raises(exceptions.RequestRangeNotSatisfiable):
    here.put("short", b"1")
    remote.blob("short").download_as_bytes(start=1)


def test_lists_come_in_pages(remote, here):
  names = [f"run/{i // 5}/{i:03}" for i in range(25)] + ["run/config.json", "other"]
  for name in names:
    here.put(name, b"1")
  here.server.api.page_size = 4
  assert [x.name for x in remote.list_blobs()] == sorted(names)
  assert here.records.count("list") == 7
  listing = remote.list_blobs(prefix="run/", delimiter="/")
  assert [x.name for x in listing] == ["run/config.json"]
  assert listing.prefixes == {f"run/{i}/" for i in range(5)}
  here.put("run/0/", b"")
  listing = remote.list_blobs(prefix="run/", delimiter="/", include_trailing_delimiter=True)
  assert [x.name for x in listing] == ["run/0/", "run/config.json"]
  listing = remote.list_blobs(start_offset="run/1", end_offset="run/2")
  assert [x.name for x in listing] == names[5:10]
  assert len(list(remote.list_blobs(max_results=6))) == 6


def test_preconditions(remote, here):
  blob = remote.blob("a")
  blob.upload_from_string(b"1", if_generation_match=0)
  first = blob.generation
  with pytest.raises(exceptions.PreconditionFailed, match="did not hold"):
    blob.upload_from_string(b"2", if_generation_match=0)
  here.put("a", b"2")
  with pytest.raises(exceptions.PreconditionFailed):
    blob.upload_from_string(b"3", if_generation_match=first)
  with pytest.raises(exceptions.PreconditionFailed):
    remote.blob("a").delete(if_generation_match=first)
  with pytest.raises(exceptions.NotModified):
    remote.blob("a").download_as_bytes(if_generation_not_match=remote.get_blob("a").generation)
  with pytest.raises(exceptions.NotFound):
    remote.blob("a", generation=first).download_as_bytes()
  assert here.get("a") == b"2"


def test_compose_appends(remote, here):
  here.put("log", b"first\n")
  log, part = remote.get_blob("log"), remote.blob("part")
  part.upload_from_string(b"second\n")
  log.compose([log, part], if_generation_match=log.generation)
  assert here.get("log") == b"first\nsecond\n"
  read = remote.get_blob("log")
  assert (read.component_count, read.md5_hash) == (2, None)
  assert read.download_as_bytes(checksum="crc32c") == b"first\nsecond\n"
  with pytest.raises(exceptions.PreconditionFailed):
    read.compose([read, part], if_generation_match=1)
  with pytest.raises(exceptions.NotFound):
    read.compose([read, remote.blob("absent")])
  with pytest.raises(exceptions.BadRequest, match="exceeds the maximum"):
    remote.blob("long").compose([part] * 33)


def test_rewrite_and_metadata(remote, here):
  blob = remote.blob("a")
  blob.metadata = {"step": "6"}
  blob.upload_from_string(b"123", content_type="text/x-test")
  copy = remote.blob("b")
  assert copy.rewrite(blob) == (None, 3, 3)
  copied = remote.copy_blob(blob, remote, "c")
  assert here.get("b") == here.get("c") == b"123"
  assert (copied.content_type, copied.metadata) == ("text/x-test", {"step": "6"})
  copy.metadata = {"step": "7"}
  here.server.store.one_write_a_second = False
  copy.patch()
  read = remote.get_blob("b")
  assert (read.metadata, read.metageneration, read.generation) == ({"step": "7"}, 2, copy.generation)
  with remote.client.batch():
    for name in "abc":
      remote.blob(name).delete()
  assert here.names() == []


def test_resumable_upload_goes_on_after_a_cut(remote, here):
  data = bytes(range(256)) * 4096
  refused, broken = Fault(status(503), {"upload"}, skip=1, times=1), Fault(cut(300_000), {"upload"}, skip=2, times=1)
  here.faults.add(refused, broken)
  with remote.blob("large").open("wb", chunk_size=512 * 1024, ignore_flush=True) as f:
    f.write(data)
  assert here.get("large") == data
  assert (refused.struck, broken.struck) == (1, 1)
  assert here.records.count("upload", status=308) >= 2


def test_one_write_a_second(remote, here):
  blob = remote.blob("a")
  blob.upload_from_string(b"1", retry=None)
  with pytest.raises(exceptions.TooManyRequests, match="exceeded the rate limit"):
    blob.upload_from_string(b"2", retry=None)
  assert (here.get("a"), here.too_fast) == (b"1", ["a"])
  here.server.store.one_write_a_second = False
  blob.upload_from_string(b"3", retry=None)
  assert (here.get("a"), here.too_fast) == (b"3", ["a", "a"])


def test_bucket_that_does_not_exist(remote, here):
  absent = remote.client.bucket("no-such-bucket")
  blob = absent.blob("a")
  assert not absent.exists()
  assert not blob.exists()
  for ask in (
    blob.reload, blob.delete, blob.download_as_bytes, absent.reload, lambda: list(absent.list_blobs()),
    lambda: blob.upload_from_string(b"1"), lambda: blob.compose([blob]), lambda: blob.rewrite(remote.blob("a")),
    lambda: absent.blob("b", chunk_size=262144).upload_from_string(b"1" * 300000),
  ):  # fmt: skip
    here.put("a", b"1")
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
      ask()


def test_tensorflow_files(bucket):
  bucket.put("laid/out", b"before")
  got = run(
    bucket,
    """
    import tensorflow as tf
    gfile = tf.io.gfile
    got = {"listed": gfile.listdir(url), "read": gfile.GFile(url + "/laid/out").read()}
    with gfile.GFile(url + "/a/b.txt", "w") as f:
      f.write("hello")
    gfile.rename(url + "/a/b.txt", url + "/c.txt")
    got |= {"renamed": gfile.GFile(url + "/c.txt").read(), "left": gfile.exists(url + "/a/b.txt")}
    gfile.makedirs(url + "/new/folder")
    got["folder"] = gfile.isdir(url + "/new/folder")
    with gfile.GFile(url + "/large", "wb") as f:
      f.write(bytes(range(256)) * 4096)
    with tf.io.TFRecordWriter(url + "/data.tfrecord") as writer:
      for i in range(100):
        writer.write(b"%d" % i)
    got["records"] = sum(1 for _ in tf.data.TFRecordDataset(url + "/data.tfrecord"))
    with tf.summary.create_file_writer(url + "/events").as_default():
      tf.summary.scalar("loss", 1.0, step=1)
    got["events"] = len(gfile.glob(url + "/events/*"))
    try:
      gfile.GFile(url + "/absent").read()
    except tf.errors.NotFoundError as error:
      got["absent"] = error.message
    print(json.dumps(got))
    """,
  )
  assert "absent was not found" in got.pop("absent")
  assert got == {
    "listed": ["laid/"], "read": "before", "renamed": "hello", "left": False, "folder": True, "records": 100,
    "events": 1,
  }  # fmt: skip
  assert bucket.get("large") == bytes(range(256)) * 4096
  assert {x.client for x in bucket.records.all()} == {"tensorflow"}


def test_tensorflow_renews_its_token_and_repeats_cut_parts(bucket):
  bucket.put("a", b"1" * 100_000)
  faults = [
    Fault(cut(300_000), {"upload"}, name="b", skip=1, times=1),
    Fault(status(503), WRITES, times=1),
    Fault(reset(), {"read"}, times=1),
    Fault(cut(5000), {"read"}, times=1),
  ]
  bucket.faults.add(*faults)
  bucket.server.metadata.token_seconds = 1
  got = run(
    bucket,
    """
    import tensorflow as tf
    got = {"read": len(tf.io.gfile.GFile(url + "/a").read())}
    with tf.io.gfile.GFile(url + "/b", "wb") as f:
      f.write(bytes(range(256)) * 4096)
    print(json.dumps(got))
    """,
    fixed_token=False,
  )
  assert got == {"read": 100_000}
  assert bucket.get("b") == bytes(range(256)) * 4096
  assert [x.struck for x in faults] == [1, 1, 1, 1]
  assert bucket.server.metadata.issued > 1


def test_orbax_saves_and_restores(bucket, tmp_path):
  got = run(
    bucket,
    """
    import jax.numpy as jnp, numpy as np, orbax.checkpoint as ocp
    tree = {"kernel": jnp.arange(10000.0).reshape(100, 100), "bias": {"b": jnp.ones(7)}}
    with ocp.CheckpointManager(url + "/checkpoints") as manager:
      manager.save(6, args=ocp.args.StandardSave(tree))
      manager.wait_until_finished()
      back = manager.restore(6, args=ocp.args.StandardRestore(tree))
      same = all(np.array_equal(a, b) for a, b in ((back["kernel"], tree["kernel"]), (back["bias"]["b"], np.ones(7))))
      print(json.dumps({"same": same, "steps": list(manager.all_steps())}))
    """,
  )
  assert got == {"same": True, "steps": [6]}
  assert bucket.records.count(client="tensorstore") and bucket.records.count("token")
  bucket.download_folder("checkpoints", tmp_path)
  assert (tmp_path / "6" / "_CHECKPOINT_METADATA").exists()
