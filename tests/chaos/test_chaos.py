"""Runs that are killed, stopped, moved and starved end as one that was left alone: `make test-chaos`."""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.training import metrics
from tests.chaos import runs

pytestmark = pytest.mark.chaos

RUNS = int(os.environ.get("CHAOS_RUNS", 20))  # of the runs that are killed; half as many are stopped


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Data, compiled programs and the undisturbed runs: (folder, data_dir, seconds of a run of 1 and of 2 processes)."""
  folder = tmp_path_factory.mktemp("chaos")
  data_dir = folder / "data"
  seconds = {}
  for count in (1, 2):
    for name in ("warm", "whole"):
      process = runs.Process(folder / f"{name}{count}", data_dir, count)
      assert process.wait() == 0, process.said()
      seconds[count] = time.monotonic() - process.began
  return folder, data_dir, seconds


# Larger pictures, as several processes take a second to agree on a stop; a rate that does not blow up rounding.
CALM = {"optimizer__learning_rate": 0.005, "data__image_size": 96, "data__eval_resize": 96}


@pytest.fixture(scope="module")
def calm(place):
  """An undisturbed run of two processes of that kind."""
  folder, data_dir, _ = place
  process = runs.Process(folder / "calm", data_dir, 2, **CALM)
  assert process.wait() == 0, process.said()
  return folder / "calm"


def kill_and_restart(workdir, place, rng, kills, count=1, victim=None) -> list[str]:
  """Kills a run that many times at random moments, then lets it end; what was going on each time."""
  _, data_dir, seconds = place
  moments = []
  for n in range(kills):
    process = runs.Process(workdir, data_dir, count)
    where = rng.choice(["anywhere", "restore", "steps"] if n else ["anywhere", "steps", "save"])
    if where == "anywhere":
      alive = process.wait_until(rng.uniform(0, 0.6 * seconds[count]))
    elif where == "steps":
      alive = process.wait_for(f"step {rng.randrange(1, runs.STEPS - 4)}/")
    elif where == "restore":
      alive = process.wait_for("reading |digits: ")
      time.sleep(rng.uniform(0, 0.2))
    else:
      alive = wait_for_save(workdir, process, rng)
    if not alive:
      break
    said = process.said()
    moments.append(where if where != "anywhere" else "steps" if "step 1/" in said else "start-up")
    if victim is None:
      process.kill_all()
    else:
      pids = process.pids()
      if len(pids) < count:  # still starting
        process.kill_all()
        continue
      os.kill(pids[victim], signal.SIGKILL)
      assert process.wait(360) == 1, process.said()  # those that had not joined yet are waited for
  assert moments
  process = runs.Process(workdir, data_dir, count)
  assert process.wait() == 0, process.said()
  return moments


def wait_for_save(workdir, process, rng) -> bool:
  """Until a checkpoint is being written, not the first one always."""
  wanted = rng.randrange(1, 4)
  seen = set()
  while process.running():
    with contextlib.suppress(FileNotFoundError):
      seen |= {p.name for p in (workdir / "checkpoints").iterdir() if "partial" in p.name}
    if len(seen) >= wanted:
      return True
    time.sleep(0.001)
  return False


def test_runs_that_were_killed_end_as_one_that_was_not(place, tmp_path):
  folder, _, _ = place

  def one(i):
    workdir = tmp_path / f"run{i}"
    moments = kill_and_restart(workdir, place, random.Random(i), kills=2 if i % 3 == 0 else 1)
    runs.assert_same(workdir, folder / "whole1")
    shutil.rmtree(workdir)
    return moments

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    moments = [m for ms in pool.map(one, range(RUNS)) for m in ms]
  counts = {kind: moments.count(kind) for kind in sorted(set(moments))}
  print(f"\nkilled {len(moments)} times: {counts}")
  assert "steps" in counts
  if RUNS >= 20:
    assert {"restore", "save"} <= counts.keys()


def test_runs_of_two_processes_outlive_the_death_of_one(place, tmp_path):
  folder, _, _ = place
  moments = []
  for i in range(-(-RUNS // 4)):
    workdir = tmp_path / f"run{i}"
    moments += kill_and_restart(workdir, place, random.Random(100 + i), kills=1 + i % 2, count=2, victim=i % 2)
    runs.assert_same(workdir, folder / "whole2")
  print(f"\nkilled {len(moments)} times: { ({kind: moments.count(kind) for kind in set(moments)}) }")


def stop_and_restart(workdir, place, reference, i, count=1, **overrides) -> tuple[int | None, float]:
  """Sends SIGTERM at a moment, lets the run go on; (step it stopped at if it had begun, seconds until it ended)."""
  _, data_dir, seconds = place
  process = runs.Process(workdir, data_dir, count, **overrides)
  if i % 3:  # once it trains
    process.wait_for(f"step {1 + 5 * i % (runs.STEPS - 6)}/")
  else:
    process.wait_until(random.Random(i).uniform(0, 0.6 * seconds[count]))
  asked = time.monotonic()
  if count > 1 and i % 2 and i % 3:
    os.kill(process.pids()[i % count], signal.SIGTERM)  # one alone, as a VM of a slice may get it
  else:
    process.signal(signal.SIGTERM)
  status, took, said = process.wait(120), time.monotonic() - asked, process.said()
  assert status in (0, 75, -signal.SIGTERM), said
  stopped_at = None
  if found := re.search(r"stopped at step (\d+) of", said):
    stopped_at = int(found[1])
    assert status == 75
    assert checkpoint.find(workdir).step == stopped_at
  again = runs.Process(workdir, data_dir, count, **overrides)
  assert again.wait() == 0, again.said()
  if stopped_at:
    assert f"resuming from {workdir}/checkpoints/{stopped_at}\n" in again.said()
    assert f"step {stopped_at}/" not in again.said()
  if stopped_at != runs.STEPS:  # or its evaluation was made at the next start, and is not in the checkpoint
    runs.assert_same(workdir, reference)
  return stopped_at, took


def test_sigterm_loses_no_step(place, tmp_path):
  folder, _, _ = place

  def one(i):
    return stop_and_restart(tmp_path / f"run{i}", place, folder / "whole1", i)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    results = list(pool.map(one, range(RUNS // 2)))
  stopped = [step for step, _ in results if step]
  assert len(stopped) >= RUNS // 6
  print(f"\nstopped at steps {stopped}; longest {max(took for _, took in results):.1f} s from signal to exit")


def test_two_processes_agree_on_where_to_stop(place, calm, tmp_path):
  results = [stop_and_restart(tmp_path / f"run{i}", place, calm, i, 2, **CALM) for i in (0, 1, 2)]
  stopped = [step for step, _ in results if step]
  assert stopped
  print(f"\nstopped at steps {stopped}; longest {max(took for _, took in results):.1f} s from signal to exit")


@pytest.mark.parametrize(("before", "after", "devices"), [(2, 1, 2), (1, 2, 2), (2, 1, 1)])
def test_moved_between_one_and_two_processes_the_run_is_the_same(
  place, calm, tmp_path, before, after, devices, monkeypatch
):
  """The same bits on as many devices; on one, which takes batch norm's groups in turn, all but rounding.

  That examples are the same whatever the number of processes is tests/data/stream/test_streams.py's.
  """
  _, data_dir, _ = place
  workdir = tmp_path / "moved"

  def part(count):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(devices) if count == 1 else "1")
    return runs.Process(workdir, data_dir, count, batch_norm_group=8, **CALM)

  first = part(before)
  assert first.wait_for("step 9/")
  first.kill_all()
  second = part(after)
  assert second.wait() == 0, second.said()
  if devices == 2:
    runs.assert_same(workdir, calm)
    return
  losses, expected = ([line["train_loss"] for line in metrics.read(w) if "train_loss" in line] for w in (workdir, calm))
  np.testing.assert_allclose(losses, expected, rtol=1e-3)
  print(f"\nlargest relative difference of a loss: {np.max(np.abs(np.divide(losses, expected) - 1)):.1e}")


def test_a_lost_peer_ends_the_other_within_the_bound(place, tmp_path):
  _, data_dir, _ = place
  took = {}
  for victim, how in ((0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)):
    process = runs.Process(tmp_path / f"run{victim}{how}", data_dir, 2)
    assert process.wait_for("step 5/")
    pids = process.pids()
    os.kill(pids[victim], how)
    lost = time.monotonic()
    while pids[1 - victim] in process.pids():
      assert time.monotonic() < lost + 10 + 15, process.said()
      time.sleep(0.05)
    took[f"process {victim}, {how.name}"] = round(time.monotonic() - lost, 1)
    if how == signal.SIGSTOP:
      os.kill(pids[victim], signal.SIGKILL)
    assert process.wait(60) == 1
    assert "Traceback" not in process.said()
  print(f"\nseconds from a peer's death to the other's end, of peer_timeout_seconds=10: {took}")


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 3 MB; needs root."""
  where = tmp_path / "disk"
  where.mkdir()
  if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", where], capture_output=True).returncode:
    pytest.skip("mounting a small file system needs root")
  yield where
  subprocess.run(["umount", "-l", where], check=True)


def fill(path: pathlib.Path, leave: int = 0) -> None:
  """Takes all space there is, but for some bytes."""
  with path.open("wb", buffering=0) as f:
    try:
      while f.write(b"x" * 4096):
        pass
    except OSError:
      f.truncate(max(f.tell() - leave, 0))


def test_a_full_disk_loses_no_checkpoint(place, small_disk):
  """Where a checkpoint has no room, nothing begins; where room ends, the run does, and goes on when there is some."""
  folder, data_dir, _ = place
  workdir, filler = small_disk / "w", small_disk / "filler"
  fill(filler, leave=40_000)
  refused = runs.Process(workdir, data_dir)
  assert refused.wait() == 2, refused.said()
  message = r"error: --workdir=.* cannot take a checkpoint of 0.1 MB: .*No space left on device\n"
  assert re.search(message, refused.said())
  assert not (workdir / "checkpoints").exists()
  filler.unlink()

  process = runs.Process(workdir, data_dir)
  assert process.wait_for("step 7/")
  fill(filler)
  assert process.wait() == 2, process.said()
  assert re.search(r"^error: .*No space left on device", process.said(), re.M), process.said()
  assert "Traceback" not in process.said()
  assert checkpoint.steps_in(workdir)
  checkpoint.find(workdir).read_arrays()  # whole
  filler.unlink()
  again = runs.Process(workdir, data_dir)
  assert again.wait() == 0, again.said()
  assert "resuming from" in again.said()
  runs.assert_same(workdir, folder / "whole1")


def interrupt_and_restart(workdir, place, reference, moment, count=1, **overrides) -> float:
  """Sends Ctrl-C at a moment, lets the run go on to the same end; seconds until it ended."""
  _, data_dir, _ = place
  process = runs.Process(workdir, data_dir, count, **overrides)
  if moment == "save":
    assert wait_for_save(workdir, process, random.Random(0))
  else:
    assert process.wait_for(moment)
  asked = time.monotonic()
  process.signal(signal.SIGINT)
  status, took, said = process.wait(120), time.monotonic() - asked, process.said()
  assert "Traceback" not in said
  assert status == 130, said
  if stopped := re.search(
    r"^interrupted at step (\d+) of \d+, which is saved; the same command resumes from there$", said, re.M
  ):
    assert checkpoint.find(workdir).step == int(stopped[1])
  else:
    assert re.search(r"^interrupted$", said, re.M), said
    assert "step 2/" not in said
  again = runs.Process(workdir, data_dir, count, **overrides)
  assert again.wait() == 0, again.said()
  if stopped:
    assert f"resuming from {workdir}/checkpoints/{stopped[1]}\n" in again.said()
  runs.assert_same(workdir, reference)
  return took


@pytest.mark.parametrize("moment", ["digits: ", "compiling", "step 3/", "step 8/", "save"])
def test_ctrl_c_loses_no_step(place, tmp_path, moment):
  """At the start, while compiling, in a step, in an evaluation (at step 8) and in a save."""
  folder, _, _ = place
  took = interrupt_and_restart(tmp_path / "w", place, folder / "whole1", moment)
  print(f"\nended {took:.1f} s after Ctrl-C at {moment!r}")


def test_ctrl_c_stops_two_processes_at_the_same_step(place, calm, tmp_path):
  took = interrupt_and_restart(tmp_path / "w", place, calm, "step 4/", 2, **CALM)
  print(f"\nended {took:.1f} s after Ctrl-C")


def test_a_second_ctrl_c_ends_a_run_at_once(place, tmp_path):
  folder, data_dir, _ = place
  for count in (1, 2):
    process = runs.Process(tmp_path / f"w{count}", data_dir, count)
    assert process.wait_for("step 5/")
    process.signal(signal.SIGINT)
    time.sleep(0.05)
    process.signal(signal.SIGINT)
    assert process.wait(10) == 130, process.said()
    assert "Traceback" not in process.said()
    again = runs.Process(tmp_path / f"w{count}", data_dir, count)
    assert again.wait() == 0, again.said()
    runs.assert_same(tmp_path / f"w{count}", folder / f"whole{count}")
