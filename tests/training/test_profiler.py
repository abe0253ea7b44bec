"""Traces of steps, for TensorBoard's profile page."""

import types

import jax
import pytest

from shufflenet_jax.distributed.hosts import Process
from shufflenet_jax.errors import UserError
from shufflenet_jax.training import profiler
from shufflenet_jax.training.loop import train
from tests.commands import command

ONE = jax.devices()[:1]


def traces(workdir):
  return list((workdir / "profile").rglob("*.xplane.pb"))


def test_steps_are_traced_into_the_workdir(config, tmp_path, capsys):
  profiled, _ = train(config, str(tmp_path), ONE, stop_after_step=4, profile_steps=profiler.parse("2,2", 12))
  [trace] = traces(tmp_path)
  assert b"train_step" in trace.read_bytes()
  assert f"profile: {tmp_path}/profile" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("process", "made", "count"),
  [
    (0, range(1, 7), 1),
    (0, range(1, 4), 1),  # ends within the steps to be traced
    (0, range(4, 7), 1),  # resumes within
    (0, range(5, 7), 0),  # resumes after
    (1, range(1, 7), 0),  # only the first process traces
  ],
)
def test_of_the_steps_to_be_traced_those_are_that_a_run_makes(tmp_path, process, made, count):
  said = []
  run = types.SimpleNamespace(
    workdir=str(tmp_path), say=said.append, process=Process(process, 2), start_step=made[0] - 1
  )
  with profiler.Profiler(run, range(3, 5)) as trace:
    for step in made:
      trace.before(step)
      trace.after(step, jax.numpy.ones(3) + step)
  assert len(traces(tmp_path)) == count
  assert ("note: steps up to" in said[0] if said else False) == (made[0] > 3)


@pytest.mark.parametrize("text", ["", "3", "3,", "0,1", "1,0", "a,b", "1,2,3", "-1,2", "1.5,2"])
def test_what_is_not_two_whole_numbers_is_refused(text):
  with pytest.raises(UserError, match=f"--profile_steps={text} must be START,COUNT, two whole numbers from 1"):
    profiler.parse(text, 12)


def test_steps_after_the_end_of_the_run_are_refused():
  assert profiler.parse("11,2", 12) == range(11, 13)
  with pytest.raises(UserError, match="--profile_steps=12,2 ends at step 13; the run has 12 steps"):
    profiler.parse("12,2", 12)


def test_a_bad_value_is_one_line_and_status_2(tmp_path):
  done = command("train", "--config=configs/quickstart.py", f"--workdir={tmp_path}/w", "--profile_steps=many")
  assert done.returncode == 2
  [line] = done.stderr.splitlines()
  assert line.startswith("error: --profile_steps=many must be")
  assert not (tmp_path / "w").exists()
