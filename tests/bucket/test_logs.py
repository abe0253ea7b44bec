"""Log files of a run in a bucket, which has no append: what they cost, and what happens when they cannot be written."""

import json
import os
import threading
import time

import pytest

from shufflenet_jax import storage
from shufflenet_jax.storage import log_folder
from tests.bucket.faults import Fault, cut, lose_answer, reset, status

WRITES = {"upload", "delete", "rewrite", "compose"}


def test_a_log_line_costs_the_same_after_20000_lines(here, monkeypatch):
  """Requests and bytes of each upload by the background thread, over a run of 20,000 lines."""
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 3600)
  line = json.dumps({"step": 100_000, "train_loss": 0.123456, "train_accuracy": 0.5}) + "\n"
  costs = []
  with storage.LogFolder(f"{here.url}/run") as folder, open(f"{folder.folder}/metrics.jsonl", "a") as file:
    for _ in range(20):
      file.write(line * 1000)
      file.flush()
      here.records.clear()
      folder.sync()
      storage_requests = [r for r in here.records.all() if r.operation in WRITES]
      costs.append((len(storage_requests), sum(r.bytes_up for r in storage_requests)))
      time.sleep(1.05)
  assert here.get("run/metrics.jsonl") == (line * 20_000).encode()
  requests, sizes = zip(*costs[1:])
  assert set(requests) == {3}
  assert max(sizes) < 1.02 * min(sizes) < 1.2 * 1000 * len(line)
  assert here.too_fast == []


def test_no_log_object_is_written_twice_within_a_second(here, monkeypatch):
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 3600)
  with storage.LogFolder(f"{here.url}/run") as folder, open(os.path.join(folder.folder, "a"), "a") as file:
    for _ in range(60):
      file.write("line\n")
      file.flush()
      folder.sync_soon()
      time.sleep(0.05)
  assert here.get("run/a") == b"line\n" * 60
  assert here.too_fast == []
  assert here.names() == ["run/a"]


@pytest.mark.parametrize("effect", [status(503), reset(), lose_answer(), status(403), cut(10)], ids=str)
def test_logs_that_cannot_be_written_are_written_later(here, impatient, monkeypatch, capsys, effect):
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 0.1)
  monkeypatch.setattr(log_folder, "MIN_SYNC_SECONDS", 0.1)
  here.server.store.one_write_a_second = False
  try:
    with storage.LogFolder(f"{here.url}/run") as folder, open(os.path.join(folder.folder, "a"), "a") as file:
      for i in range(30):
        if i == 5:
          fault = here.faults.add(Fault(effect, {"upload", "compose"}))
        if i == 20:
          here.faults.clear()
        file.write(f"{i}\n")
        file.flush()
        time.sleep(0.05)
  finally:
    here.server.store.one_write_a_second = True
  assert fault.struck
  assert here.get("run/a").decode().split() == [str(i) for i in range(30)]


def test_logs_that_are_never_written_are_an_error_at_the_end(here, impatient, monkeypatch, capsys):
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 0.1)
  here.faults.add(Fault(status(403), {"upload"}))
  with pytest.raises(storage.Refused, match="the last lines of the logs are lost: .*no permission"):  # noqa: SIM117
    with storage.LogFolder(f"{here.url}/run") as folder:
      storage.write_text(f"{folder.folder}/a", "1")
      time.sleep(0.5)
  assert "training continues" in capsys.readouterr().err
  assert not [t for t in threading.enumerate() if t.name == "logs"]


def test_an_unexpected_error_does_not_stop_the_logs(here, monkeypatch, capsys):
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 0.1)
  upload_new, failed = log_folder.MirroredFile.upload_new, threading.Event()

  def fail_once(self):
    if not failed.is_set():
      failed.set()
      raise ValueError("of an unexpected kind")
    upload_new(self)

  monkeypatch.setattr(log_folder.MirroredFile, "upload_new", fail_once)
  with storage.LogFolder(f"{here.url}/run") as folder:
    storage.write_text(f"{folder.folder}/a", "1")
    assert failed.wait(10)
    until = time.monotonic() + 20
    while here.names() != ["run/a"] and time.monotonic() < until:
      time.sleep(0.05)
    assert here.names() == ["run/a"]  # before the context ends, which would try again
  assert "note: of an unexpected kind; training continues" in capsys.readouterr().err


def test_a_log_file_that_is_replaced_twice_between_two_uploads_is_written_again(here, monkeypatch):
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 3600)
  here.server.store.one_write_a_second = False
  try:
    with storage.LogFolder(f"{here.url}/run") as folder:
      for content in (b"A" * 10, b"B" * 12, b"C" * 15, b"D" * 15):
        storage.write_bytes(f"{folder.folder}/curves.png", content)
        if content[:1] in b"AD":
          folder.sync()
          assert here.get("run/curves.png") == content
        if content[:1] == b"C":
          folder.sync()
          assert here.get("run/curves.png") == content
  finally:
    here.server.store.one_write_a_second = True
