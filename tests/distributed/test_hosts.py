"""Joining other processes, and stopping on request with nothing lost."""

import os
import signal
import subprocess
import types

import jax
import pytest

from shufflenet_jax.distributed import hosts
from shufflenet_jax.errors import PREEMPTED, Preempted, UserError
from shufflenet_jax.training.loop import train
from tests.checkpoints import assert_stopped_at_6_and_resumes
from tests.launch.launcher import ROOT

ONE = jax.devices()[:1]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("localhost:1", 2, None), "--coordinator, --num_processes and --process_id go together"),
    ((None, 2, 0), "--coordinator, --num_processes and --process_id go together"),
    (("localhost", 2, 0), "--coordinator=localhost is not HOST:PORT"),
    (("localhost:99999", 2, 0), "--coordinator=localhost:99999 is not HOST:PORT"),
    (("localhost:1", 2, 2), "--process_id=2 must be from 0 to 1, below --num_processes"),
  ],
)
def test_flags_that_join_nothing(flags, message):
  given = dict(zip(("coordinator", "num_processes", "process_id"), flags))
  with pytest.raises(UserError, match=message):
    hosts.join(types.SimpleNamespace(distributed=True, **given), 10, preemptible=True)


@pytest.mark.parametrize(
  ("script", "message"),
  [
    (None, "cannot be used (launch/local.sh: line"),
    ("echo 'ImportError: libpython3.11.so: cannot open' >&2; exit 127", "(ImportError: libpython3.11.so: cannot open)"),
    ("echo Traceback >&2; echo 'OSError: no address for localhost' >&2; exit 1", "(OSError: no address for localhost)"),
  ],
)
def test_local_sh_passes_on_why_python_does_not_start(tmp_path, script, message):
  python = tmp_path / "python"
  if script:
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
  done = subprocess.run(
    ["bash", "launch/local.sh", "2", "--"], cwd=ROOT, env={**os.environ, "PYTHON": str(python)}, capture_output=True,
    text=True,
  )  # fmt: skip
  assert done.returncode == 2
  [line] = done.stderr.splitlines()
  assert line.startswith(f"error: PYTHON={python} ") and message in line


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "'' is not a number of processes"),
    (["0", "--"], "'0' is not a number of processes"),
    (["two", "--"], "'two' is not a number of processes"),
    (["08", "--"], "'08' is not a number of processes"),
    (["2", "trian", "--"], "trian is not a command"),
    (["2", "--config=x"], "-- is missing before the processes' arguments"),
  ],
)
def test_local_sh_says_what_is_wrong(arguments, message):
  done = subprocess.run(["bash", ROOT / "launch/local.sh", *arguments], capture_output=True, text=True, timeout=60)
  assert done.returncode == 2
  assert message in done.stderr


def test_sigterm_saves_and_the_next_start_makes_the_evaluation_that_was_due(config, tmp_path, monkeypatch):
  """At step 6 of 12, which is one of evaluation and of a checkpoint."""
  expected, figures = train(config, str(tmp_path / "whole"), ONE)
  told, reached = [], hosts.StopRequest.reached

  def reached_after_a_signal(request, step):
    told.append(step)
    if step == 6:
      os.kill(os.getpid(), signal.SIGTERM)
    return reached(request, step)

  with monkeypatch.context() as patch:
    patch.setattr(hosts.StopRequest, "reached", reached_after_a_signal)
    with pytest.raises(
      Preempted, match="stopped at step 6 of 12, which is saved; the same command resumes from there"
    ) as raised:
      train(config, str(tmp_path / "w"), ONE)
  assert raised.value.status == PREEMPTED == 75
  assert told == [1, 2, 3, 4, 5, 6]
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as it was
  assert_stopped_at_6_and_resumes(config, str(tmp_path / "w"), expected, figures)
