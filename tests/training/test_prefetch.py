"""Batches ahead of the devices: order, errors, and what counts as waiting."""

import itertools
import subprocess
import sys
import threading
import time

import jax
import pytest

from shufflenet_jax.training import prefetch
from tests.commands import ROOT


def test_batches_come_in_order_prepared_and_then_the_end():
  with prefetch.Feed(iter(range(5)), lambda x: 10 * x) as batches:
    assert [batches.get(()) for _ in range(5)] == [0, 10, 20, 30, 40]
    assert batches.get(()) is None


def test_an_error_comes_where_its_batch_would():
  def source():
    yield 1
    raise ValueError("no more of this")

  with prefetch.Feed(source(), lambda x: x) as batches:
    assert batches.get(()) == 1
    with pytest.raises(ValueError, match="no more of this"):
      batches.get(())


def test_an_endless_source_stops_where_it_is_closed():
  read = []
  with prefetch.Feed((read.append(i) or i for i in itertools.count()), lambda x: x, ahead=2) as batches:
    batches.get(())
  assert len(read) <= 1 + 2 + 1  # given, ahead, and the one in hand
  assert not batches.is_running


def test_a_request_to_stop_does_not_wait_for_a_batch_that_is_late():
  may_go, asked = threading.Event(), []

  def source():
    yield 1
    may_go.wait()

  def stop():
    asked.append(True)
    return len(asked) > 2

  with prefetch.Feed(source(), lambda x: x) as batches:
    assert batches.get((), lambda: False) == 1
    assert batches.get((), stop) is None
    assert len(asked) == 3
  assert batches.is_running  # its end is not waited for
  may_go.set()
  until = time.monotonic() + 10
  while batches.is_running and time.monotonic() < until:
    time.sleep(0.01)
  assert not batches.is_running


def test_only_time_in_which_the_devices_are_idle_counts_as_waiting(monkeypatch):
  """By a clock that the devices and the source move: the step before takes 3 s more, then the batch 2 s more."""
  now, may_go = [0.0], threading.Event()

  def source():
    yield "first"
    may_go.wait()
    now[0] += 2
    yield "second"

  def finish_step(result):
    assert result == "the step before"
    now[0] += 3

  monkeypatch.setattr(prefetch.time, "perf_counter", lambda: now[0])
  monkeypatch.setattr(jax, "block_until_ready", finish_step)
  with prefetch.Feed(source(), lambda x: x) as batches:
    while batches._queue.empty():
      pass
    assert batches.get("not waited for") == "first"
    assert batches.waited_seconds == 0
    get = batches._queue.get
    monkeypatch.setattr(batches._queue, "get", lambda timeout: may_go.set() or get())
    assert batches.get("the step before") == "second"
    assert batches.waited_seconds == 2


LATE_AT_THE_END = """
import atexit, itertools
import jax, numpy as np
from shufflenet_jax import cli
from shufflenet_jax.training import prefetch

atexit.register(print, "cleaned up")

def main(flags):
  put = jax.jit(lambda x: x @ x)
  feed = prefetch.Feed(itertools.repeat(np.ones((300, 300))), lambda x: jax.block_until_ready(put(x)), ahead=10**9)
  feed.__enter__()  # and no end: its thread still reads when Python shuts down
  print("trained", end="")  # not flushed
  return 5

cli.Command(main, lambda flags: None)()
"""


def test_a_command_ends_with_its_status_while_data_are_late():
  done = subprocess.run([sys.executable, "-c", LATE_AT_THE_END], cwd=ROOT, capture_output=True, text=True, timeout=100)
  assert (done.returncode, done.stdout) == (5, "trainedcleaned up\n"), done.stderr
