"""Traces of steps, for TensorBoard's profile page."""

import jax
import pytest

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


def test_a_trace_that_the_end_of_the_run_cuts_off_is_written(config, tmp_path):
  train(config, str(tmp_path), ONE, stop_after_step=2, profile_steps=profiler.parse("2,8", 12))
  assert len(traces(tmp_path)) == 1


def test_a_run_that_resumes_beyond_the_steps_traces_nothing(config, tmp_path):
  train(config, str(tmp_path), ONE, stop_after_step=4)
  train(config, str(tmp_path), ONE, stop_after_step=5, profile_steps=profiler.parse("2,2", 12))
  assert not traces(tmp_path)


def test_a_run_that_resumes_within_the_steps_traces_the_rest(config, tmp_path):
  train(config, str(tmp_path), ONE, stop_after_step=2)
  train(config, str(tmp_path), ONE, stop_after_step=4, profile_steps=profiler.parse("2,2", 12))
  assert len(traces(tmp_path)) == 1


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
