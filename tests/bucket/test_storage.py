"""`shufflenet_jax.storage` in a bucket, with the real client: its operations, and the meaning of each error."""

import errno
import os
import tempfile
import time

import pytest

from shufflenet_jax import storage
from shufflenet_jax.storage import client, errors
from tests.bucket.faults import Fault, cut, no_such_bucket, reset, slow, status

WRITES = {"upload", "delete", "rewrite", "compose"}


def put_folder(url, name="folder"):
  """A folder of three files, the last written being `marker`."""
  with storage.new_folder(f"{url}/{name}", marker="in/marker") as inside:
    for file in ("in/marker", "a", "b/c"):
      storage.write_text(f"{inside}/{file}", file)
  return f"{url}/{name}"


def test_files_and_folders(here):
  folder = put_folder(here.url)
  storage.write_bytes(f"{here.url}/top.bin", bytes(range(256)))
  assert storage.read_bytes(f"{here.url}/top.bin") == bytes(range(256))
  assert storage.read_head(f"{here.url}/top.bin", 3) == b"\0\1\2"
  here.put("empty", b"")
  assert storage.read_head(f"{here.url}/empty", 3) == b""
  here.delete("empty")
  assert storage.read_text(f"{folder}/b/c") == "b/c"
  assert storage.list_folder(here.url) == [("folder", True), ("top.bin", False)]
  assert sorted(storage.walk(folder)) == [("a", 1), ("b/c", 3), ("in/marker", 9)]
  assert storage.is_folder(folder) and not storage.is_file(folder)
  assert storage.is_file(f"{folder}/a") and not storage.is_folder(f"{folder}/a")
  assert not storage.is_file(f"{folder}/none") and not storage.is_folder(f"{here.url}/fold")
  with storage.local_copy(folder) as local:
    assert sorted(storage.walk(local)) == sorted(storage.walk(folder))
  storage.move_folder(folder, f"{here.url}/moved", marker="in/marker")
  assert here.names() == ["moved/a", "moved/b/c", "moved/in/marker", "top.bin"]
  storage.remove_folder(f"{here.url}/moved", marker="in/marker")
  storage.remove_file(f"{here.url}/top.bin")
  storage.remove_file(f"{here.url}/top.bin")
  assert here.names() == []


@pytest.mark.parametrize(
  "pattern, found",
  [
    ("*.jpg", ["a.jpg"]),
    ("**/*.jpg", ["a.jpg", "cats/b.jpg", "cats/old/c.jpg"]),
    ("cats/*", ["cats/b.jpg", "cats/d.png"]),
    ("cats/?.[jp]*g", ["cats/b.jpg", "cats/d.png"]),
    ("dogs/*", []),
    ("**", ["a.jpg", "cats/b.jpg", "cats/d.png", "cats/old/c.jpg"]),
    ("cats/.*", ["cats/.e.jpg"]),
    ("*/[z-a].jpg", []),
    ("*/old/[]c].jpg", ["cats/old/c.jpg"]),
  ],
)
def test_globs_match_as_in_local_folders(here, tmp_path, pattern, found):
  for name in ("a.jpg", "cats/b.jpg", "cats/d.png", "cats/.e.jpg", "cats/old/c.jpg"):
    here.put(f"photos/{name}", b"")
    storage.write_bytes(f"{tmp_path}/{name}", b"")
  assert storage.glob(f"{here.url}/photos/{pattern}") == [f"{here.url}/photos/{name}" for name in found]
  assert storage.glob(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in found]


def test_a_listing_of_several_pages(here):
  here.server.api.page_size, before = 7, here.server.api.page_size
  try:
    for i in range(30):
      here.put(f"many/{i:02}", b"")
    assert len(list(storage.walk(f"{here.url}/many"))) == 30
    assert len(storage.list_folder(f"{here.url}/many")) == 30
  finally:
    here.server.api.page_size = before


def test_absent_is_not_found_and_nothing_else(here):
  for ask in (storage.read_bytes, storage.list_folder, lambda path: list(storage.walk(path))):
    with pytest.raises(FileNotFoundError, match=f"{here.url}/none"):
      ask(f"{here.url}/none")


def test_no_such_bucket_is_named_at_once(here):
  url = "gs://no-bucket-of-this-name"
  for ask in (storage.read_bytes, storage.is_file, storage.is_folder, storage.list_folder, storage.make_folder):
    with pytest.raises(storage.Refused, match=f"there is no bucket {url}; create it, or correct its name"):
      ask(url + "/run")
  with pytest.raises(storage.Refused, match="there is no bucket"):
    storage.write_bytes(f"{url}/file", b"")


def test_a_bucket_that_was_deleted_is_not_mistaken_for_an_empty_one(here):
  here.put("a", b"1")
  assert storage.read_bytes(f"{here.url}/a") == b"1"
  here.faults.add(*no_such_bucket())
  for ask in (storage.read_bytes, storage.is_file, storage.is_folder, storage.list_folder, storage.glob):
    with pytest.raises(storage.Refused, match="there is no bucket"):
      ask(f"{here.url}/a")
  with pytest.raises(storage.Refused, match="there is no bucket"):
    storage.write_bytes(f"{here.url}/a", b"")


@pytest.mark.parametrize("code", [400, 403, 405, 409])
def test_permanent_failures_are_not_retried(here, code):
  storage.make_folder(here.url)
  here.faults.add(Fault(status(code), {"read", "list", "upload"}))
  here.records.clear()
  for ask in (storage.read_bytes, storage.list_folder, lambda path: storage.write_bytes(path, b"")):
    with pytest.raises(storage.Refused, match=rf"{here.url}/a cannot be (read|listed|written): .*HTTP {code}"):
      ask(f"{here.url}/a")
  assert len(here.records.all(status=code)) == 3


@pytest.mark.parametrize("effect", [status(503), status(429), status(500), status(408), reset(), cut(1)], ids=str)
def test_transient_failures_are_retried(here, effect):
  here.put("a", b"content")
  storage.make_folder(here.url)
  fault = here.faults.add(Fault(effect, {"read", "list", "upload", "delete", "stat"}, times=2))
  assert storage.read_bytes(f"{here.url}/a") == b"content"
  storage.write_bytes(f"{here.url}/b", b"more")
  assert fault.struck == 2
  assert here.get("b") == b"more"


@pytest.mark.parametrize("effect", [status(503), status(429), reset(), slow(5)], ids=str)
def test_transient_failures_that_do_not_end_are_unavailable(here, impatient, monkeypatch, effect):
  monkeypatch.setattr(client, "TIMEOUT", (1, 1))
  storage.make_folder(here.url)
  here.faults.add(Fault(effect))
  began = time.monotonic()
  with pytest.raises(storage.Unavailable, match=f"{here.url}/a cannot be read now .*; run the same command again"):
    storage.read_bytes(f"{here.url}/a")
  assert time.monotonic() - began < 10


def test_a_long_wait_is_reported(here, impatient, monkeypatch, capsys):
  monkeypatch.setattr(client, "FIRST_NOTICE_SECONDS", 0)  # the pauses between tries are random
  monkeypatch.setattr(client, "NOTICE_SECONDS", 0)
  storage.make_folder(here.url)
  here.put("a", b"")
  here.faults.add(Fault(status(503), {"read"}, times=2))
  storage.read_bytes(f"{here.url}/a")
  assert f"waiting for {here.url}/a (HTTP 503), for up to 2 s in total" in capsys.readouterr().err


def test_credentials_that_expire_are_renewed(here):
  here.put("a", b"1")
  storage.read_bytes(f"{here.url}/a")
  here.expire_tokens()
  assert storage.read_bytes(f"{here.url}/a") == b"1"


def test_credentials_that_cannot_be_renewed_are_unavailable(here, impatient):
  here.put("a", b"1")
  storage.read_bytes(f"{here.url}/a")
  here.expire_tokens(refreshable=False)
  with pytest.raises(storage.Unavailable, match="the credentials have expired"):
    storage.read_bytes(f"{here.url}/a")
  here.faults.clear()
  assert storage.read_bytes(f"{here.url}/a") == b"1"


def test_credentials_that_never_worked_are_refused(here, monkeypatch):
  here.put("a", b"1")
  storage.read_bytes(f"{here.url}/a")
  monkeypatch.setattr(errors, "credentials_worked", False)
  here.expire_tokens(refreshable=False)
  with pytest.raises(storage.Refused, match="the credentials are not accepted .*gcloud auth application-default login"):
    storage.read_bytes(f"{here.url}/a")


def test_corrupted_bytes_are_noticed(here):
  from tests.bucket.faults import corrupt

  here.put("a", b"content")
  storage.make_folder(here.url)
  fault = here.faults.add(Fault(corrupt(2), {"read"}, times=1))
  assert storage.read_bytes(f"{here.url}/a") == b"content"
  assert fault.struck == 1


def test_a_404_whose_body_breaks_off_is_retried(here):
  storage.make_folder(here.url)
  fault = here.faults.add(Fault(cut(20), {"read"}, times=1))
  with pytest.raises(FileNotFoundError):
    storage.read_bytes(f"{here.url}/none")
  assert fault.struck == 1


def test_permission_to_see_the_bucket_is_not_needed(here):
  from tests.bucket.faults import no_leave_to_see_bucket

  here.faults.add(*no_leave_to_see_bucket())
  folder = put_folder(here.url)
  storage.check_writable(folder, 100)
  assert storage.is_folder(folder)


def test_the_marker_is_not_written_before_the_other_files(here, impatient):
  storage.make_folder(here.url)
  here.faults.add(Fault(status(403), {"upload"}, name="/b/c"))
  with pytest.raises(storage.Refused):
    put_folder(here.url)
  assert "folder/in/marker" not in here.names()


@pytest.mark.parametrize("struck", ["upload", "rewrite", "delete"])
def test_neither_half_of_an_interrupted_move_looks_complete(here, struck):
  folder = put_folder(here.url)
  for skip in range(5):
    fault = here.faults.add(Fault(status(403), {struck}, name="moved|folder", skip=skip, times=1))
    if fault and struck == "upload":
      return  # a move uploads nothing
    try:
      storage.move_folder(folder, f"{here.url}/moved", marker="in/marker")
    except storage.Refused:
      names = here.names()
      whole = {"a", "b/c", "in/marker"}
      for half in ("folder", "moved"):
        found = {name.removeprefix(f"{half}/") for name in names if name.startswith(half)}
        assert "in/marker" not in found or found == whole, (skip, names)
    here.faults.clear()
    here.delete("")
    folder = put_folder(here.url)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_temporary_folder_is_not_blamed_on_the_bucket(here, tmp_path, monkeypatch, code):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

  def write():
    raise OSError(code, os.strerror(code))

  message = f"{tmp_path}/shufflenet_jax_.* cannot be written: {os.strerror(code)}; .*set TMPDIR"
  with pytest.raises(storage.Refused, match=message), storage.new_folder(f"{here.url}/folder", marker="a"):
    write()
  with pytest.raises(storage.Refused, match=message), storage.new_file(f"{here.url}/file"):
    write()
  here.put("folder/a", b"1")
  monkeypatch.setattr(client, "download", lambda _: write())
  with pytest.raises(storage.Refused, match=message), storage.local_copy(f"{here.url}/folder"):
    pass
  with pytest.raises(storage.Refused, match=message), storage.LogFolder(f"{here.url}/run") as folder, folder.writing():
    write()
  assert os.listdir(tmp_path) == []
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
  with pytest.raises(storage.Refused, match="no temporary folder can be made .*set TMPDIR"):
    storage.LogFolder(f"{here.url}/run")
