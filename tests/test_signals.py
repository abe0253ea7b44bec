"""Ctrl-C at any moment: one line, status 130, and nothing that was trained is lost."""

import os
import re
import signal
import subprocess
import sys

import jax
import pytest

from shufflenet_jax import signals
from shufflenet_jax.distributed import hosts
from shufflenet_jax.errors import INTERRUPTED, Interrupted, Preempted
from shufflenet_jax.training import batches
from shufflenet_jax.training.loop import train
from tests.chaos import runs
from tests.checkpoints import assert_stopped_at_6_and_resumes
from tests.commands import ROOT

ONE = jax.devices()[:1]
# Computes in C for minutes, as XLA's compiler does, where Python runs no signal handler.
BUSY = "import hashlib; print('busy', flush=True); hashlib.pbkdf2_hmac('sha512', b'', b'', 10**9)"


def interrupted(code: str, times: int = 1) -> tuple[int, str]:
  """(status, stderr) of code that gets Ctrl-C once it has printed `busy`, and again each time it prints more."""
  with subprocess.Popen(
    [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    for _ in range(times):
      assert process.stdout.readline()
      process.send_signal(signal.SIGINT)
    try:
      _, stderr = process.communicate(timeout=20)
    finally:
      process.kill()
    return process.returncode, stderr


def test_ctrl_c_ends_a_command_that_computes_in_c():
  assert interrupted(f"from shufflenet_jax import cli\ndef main(_): {BUSY}\ncli.Command(main, id)()") == (
    130,
    "interrupted\n",
  )


def test_a_second_ctrl_c_ends_what_holds_the_first_one():
  code = f"""
from shufflenet_jax import cli, signals
def main(_):
  with signals.held(lambda: print("noted", flush=True)):
    print("ready", flush=True)
    import time; time.sleep(1)
    {BUSY}
cli.Command(main, id)()"""
  assert interrupted(code, times=2) == (130, "interrupted again; ended at once\n")


def test_what_must_be_finished_is_finished_first():
  code = """
from shufflenet_jax import cli, signals
def main(_):
  with signals.finished_first():
    print("ready", flush=True)
    import time; time.sleep(1)
    print("finished", flush=True)
  print("not reached")
cli.Command(main, id)()"""
  with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, stderr=-1, text=True) as process:
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("finished\n", "interrupted\n")
    assert process.returncode == 130


def test_without_a_command_a_second_ctrl_c_does_what_it_did_before():
  """As in a notebook, whose process is not ours to end."""
  noted = []
  with pytest.raises(KeyboardInterrupt), signals.held(lambda: noted.append(1)):
    os.kill(os.getpid(), signal.SIGINT)
    assert noted == [1]
    os.kill(os.getpid(), signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("moment", ["after step 6", "in the evaluation"])
def test_ctrl_c_saves_and_the_next_start_goes_on(config, tmp_path, monkeypatch, moment):
  """At step 6 of 12, which is one of evaluation and of a checkpoint."""
  expected, figures = train(config, str(tmp_path / "whole"), ONE)
  reached, for_evaluation = hosts.StopRequest.reached, batches.for_evaluation

  def reached_after_a_signal(request, step):
    if step == 6 and moment == "after step 6":
      os.kill(os.getpid(), signal.SIGINT)
    return reached(request, step)

  def for_evaluation_with_a_signal(*args):
    made = for_evaluation(*args)

    def host(start_step):
      for i, batch in enumerate(made.host(start_step)):
        if i == 1 and moment == "in the evaluation":
          os.kill(os.getpid(), signal.SIGINT)
        assert i < 2 or moment == "after step 6"
        yield batch

    return made._replace(host=host)

  with monkeypatch.context() as patch:
    patch.setattr(hosts.StopRequest, "reached", reached_after_a_signal)
    patch.setattr(batches, "for_evaluation", for_evaluation_with_a_signal)
    said = "interrupted at step 6 of 12, which is saved; the same command resumes from there"
    with pytest.raises(Interrupted, match=said) as raised:
      train(config, str(tmp_path / "w"), ONE)
  assert raised.value.status == INTERRUPTED == 130
  assert_stopped_at_6_and_resumes(config, str(tmp_path / "w"), expected, figures)


def test_sigterm_in_an_evaluation_that_is_owed_leaves_it_owed(config, tmp_path, monkeypatch):
  """Of the last step, so that no step follows at which to stop."""
  workdir, for_evaluation = tmp_path / "w", batches.for_evaluation
  _, figures = train(config, str(workdir), ONE)
  lines = [line for line in (workdir / "metrics.jsonl").read_text().splitlines(True) if "eval_top1" not in line]
  (workdir / "metrics.jsonl").write_text("".join(lines))

  def for_evaluation_after_a_signal(*args):
    made = for_evaluation(*args)

    def host(start_step):
      os.kill(os.getpid(), signal.SIGTERM)
      yield from made.host(start_step)

    return made._replace(host=host)

  with monkeypatch.context() as patch:
    patch.setattr(batches, "for_evaluation", for_evaluation_after_a_signal)
    with pytest.raises(Preempted, match="stopped at step 12 of 12, which is saved"):
      train(config, str(workdir), ONE)
  assert train(config, str(workdir), ONE)[1] == figures


def test_ctrl_c_while_a_command_starts(tmp_path, data_dir):
  """Before the first step there is nothing to save: it ends at once, wherever it is."""
  for pattern in ("", "multiply-adds", "compiling"):
    process = runs.Process(tmp_path / "w", data_dir, num_train_steps=100_000)
    assert process.wait_for(pattern) or pattern == ""
    process.signal(signal.SIGINT)
    status, said = process.wait(60), process.said()
    # Python itself needs a moment until it runs anything of ours.
    if status == -signal.SIGINT and not pattern:
      continue
    assert status == 130, said
    assert re.search(r"^interrupted( at step \d+ .*)?$", said, re.M), said
    assert "Traceback" not in said


def test_prepare_ends_in_order_and_goes_on(photos, tmp_path):
  arguments = [
    sys.executable, "-m", "shufflenet_jax.data.prepare", "--name=flowers", f"--train={photos}/train",
    f"--validation={photos}/val", f"--to={tmp_path}/to", "--shards=1"
  ]  # fmt: skip
  with subprocess.Popen(arguments, cwd=ROOT, stdout=-1, stderr=-1, text=True) as process:
    assert process.stdout.readline().startswith("train: 20 pictures")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
  assert (process.returncode, stderr) == (130, "\nstopped; complete shards are kept, and the same command continues\n")
  done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
