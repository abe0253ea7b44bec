"""Damaged checkpoints are named, moved away and never used; the one before is."""

import json
import os
import random
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import checkpoint, integrity, orbax_files, recovery, saver
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.training.loop import train
from tests.commands import ROOT

ONE = jax.devices()[:1]


def state(step):
  """A small state with as many kinds of leaves as a real one."""
  rng = np.random.default_rng(step)
  kernel = rng.normal(size=(40, 30)).astype(np.float32)
  return {
    "step": np.int32(step),
    "params": {"stem": {"kernel": kernel, "bias": np.zeros(30, np.float32)}},
    "batch_stats": {"stem": {"mean": kernel[0]}},
    "opt_state": [{}, {"trace": {"stem": {"kernel": -kernel, "bias": kernel[1]}}}],
  }


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
  """A work directory with checkpoints of steps 1 and 2."""
  from configs import quickstart

  workdir = tmp_path_factory.mktemp("workdir")
  with saver.Saver(workdir, keep=3) as saves:
    for step in (1, 2):
      saves.save(step, state(step), quickstart.get_config(), ["a", "b"], {"top1": 0.5}, statistics_group=8)
  return workdir


def files_of_newest(workdir):
  return sorted(p.relative_to(workdir) for p in (workdir / "checkpoints/2").rglob("*") if p.is_file())


def truncated(path, rng):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path, rng):
  path.write_bytes(b"")


def removed(path, rng):
  path.unlink()


def flipped(path, rng):
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncated, emptied, removed, flipped])
def test_no_damage_to_any_file_gives_wrong_values(two_checkpoints, tmp_path, damage):
  """What is read is what was saved, of step 2 or else of step 1; and each checkpoint that is moved is named."""
  expected = {step: integrity.arrays_by_name(state(step)) for step in (1, 2)}
  files = files_of_newest(two_checkpoints)
  assert len(files) > 8
  fell_back = set()
  for i, name in enumerate(files):
    for attempt in range(6 if damage is flipped else 1):
      workdir = tmp_path / f"{i}_{attempt}"
      shutil.copytree(two_checkpoints, workdir)
      damage(workdir / name, random.Random(attempt))
      said = []
      found, arrays = recovery.newest_whole(workdir, said.append)
      assert found.class_names == ("a", "b")
      jax.tree.map(np.testing.assert_array_equal, arrays, expected[found.step])
      said = [line for line in said if not line.startswith("reading ")]
      aside = [p.name for p in (workdir / "damaged").glob("*")]
      assert (found.step, aside, len(said)) in ((2, [], 0), (1, ["2.0"], 1)), (name, said)
      with saver.Saver(workdir, keep=3) as saves:  # which looks at every step there is
        saves.save(3, state(3), found.config, found.class_names, {"top1": 0.6})
      if found.step == 1:
        assert str(workdir / "checkpoints/2") in said[0]
        fell_back.add(str(name))
      shutil.rmtree(workdir)
  assert any("/d/" in name for name in fell_back)
  assert "checkpoints/2/description/metadata" in fell_back


def test_values_that_were_not_saved_are_damage(two_checkpoints):
  found = checkpoint.read(checkpoint.steps_in(two_checkpoints)[0][1])
  arrays = found.read_arrays()
  arrays["params/stem/bias"][3] = np.float32(1e-30)
  with pytest.raises(integrity.Damaged, match="their digest differs"):
    integrity.check_arrays(arrays, found.digest)


def test_values_that_are_not_finite_are_damage(tmp_path):
  from configs import quickstart

  bad = state(2)
  bad["params"]["stem"]["bias"][0] = np.nan
  with saver.Saver(tmp_path, keep=3) as saves:
    saves.save(1, state(1), quickstart.get_config(), ["a"], None)
    saves.save(2, bad, quickstart.get_config(), ["a"], None)
  said = []
  found, _ = recovery.newest_whole(tmp_path, said.append)
  assert found.step == 1
  assert any("params/stem/bias has values that are not finite" in line for line in said)


def test_half_written_ones_are_moved_not_deleted(two_checkpoints, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  half = workdir / "checkpoints/3.orbax-checkpoint-tmp-17"
  shutil.copytree(workdir / "checkpoints/2/state", half / "state")
  said = []
  assert recovery.newest_whole(workdir, said.append)[0].step == 2
  assert not half.exists()
  assert (workdir / "damaged" / f"{half.name}.0" / "state").is_dir()
  assert "half-written" in said[0]


def test_training_goes_on_from_the_one_before(run, config, tmp_path, capsys):
  """A damaged newest checkpoint costs its steps, and nothing else."""
  shutil.copytree(run.workdir, tmp_path / "w")
  newest = tmp_path / "w/checkpoints/12"
  biggest = max((newest / "state/d").iterdir(), key=lambda p: p.stat().st_size)
  truncated(biggest, None)
  capsys.readouterr()
  resumed, _ = train(config, str(tmp_path / "w"), ONE)
  said = capsys.readouterr().out
  assert f"checkpoint {newest} is not whole" in said
  assert f"resuming from {tmp_path}/w/checkpoints/6" in said
  jax.tree.map(np.testing.assert_array_equal, resumed, run.state)


def test_a_state_of_another_layout_is_refused_by_name(two_checkpoints):
  found = checkpoint.read(checkpoint.steps_in(two_checkpoints)[0][1])
  arrays = found.read_arrays()
  other = state(2)
  other["params"]["stem"]["bias"] = np.zeros(31, np.float32)
  with pytest.raises(UserError, match=r"params/stem/bias is float32\[30\], .* need float32\[31\]"):
    checkpoint.state_from(arrays, other, found.path)
  jax.tree.map(np.testing.assert_array_equal, checkpoint.state_from(arrays, state(2), found.path), state(2))


def test_torn_lines_of_metrics_are_dropped(tmp_path):
  from shufflenet_jax.distributed.hosts import Process
  from shufflenet_jax.training import metrics

  lines = [json.dumps({"step": s, "train_loss": 1.0}) for s in (1, 2, 3)]
  (tmp_path / metrics.FILE).write_text("\n".join(lines)[:-9])
  with metrics.Logs(str(tmp_path), metrics.read(tmp_path), Process(0, 1)) as logs:
    logs.write(3, {"train_loss": 2.0})
  assert [line["train_loss"] for line in metrics.read(tmp_path)] == [1.0, 1.0, 2.0]
  assert len((tmp_path / metrics.FILE).read_text().splitlines()) == 3


def test_two_runs_in_one_work_directory_are_refused(config, tmp_path):
  """And what the first is writing is left alone."""
  import fcntl

  half = tmp_path / "w/checkpoints/3.orbax-checkpoint-tmp-17"
  half.mkdir(parents=True)
  descriptor = os.open(tmp_path / "w", os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process is training in"):
      train(config, str(tmp_path / "w"), ONE)
  finally:
    os.close(descriptor)
  assert half.exists()


def test_training_does_not_begin_anew_where_all_checkpoints_are_damaged(two_checkpoints, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  for step in (1, 2):
    emptied(workdir / f"checkpoints/{step}/description/metadata", None)
  said = []
  with pytest.raises(
    UserError, match="none of the checkpoints in .* is whole .*checkpoints/2: its description is damaged"
  ):
    recovery.newest_whole(workdir, said.append)
  assert said == []
  assert sorted(os.listdir(workdir)) == ["checkpoints"]


@pytest.mark.skipif(not os.path.exists("/usr/bin/setpriv"), reason="needs setpriv (util-linux)")
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user who may not read")
@pytest.mark.skipif(
  not all(folder.stat().st_mode & 0o001 for folder in (ROOT, *ROOT.parents)),
  reason="the checkout lies in a folder that other users may not enter",
)
@pytest.mark.parametrize("part", ["description/metadata", "state/_METADATA", "state", "."])
def test_what_may_not_be_read_is_no_damage(two_checkpoints, tmp_path, part):
  """One line that names the file, status 2, and nothing is moved. (A bucket's refusals: tests/bucket.)"""
  tmp_path.chmod(0o755)
  for folder in tmp_path.parents:
    if folder.stat().st_uid == 0 and folder != folder.parent and os.access(folder, os.W_OK) and "pytest" in str(folder):
      folder.chmod(0o755)
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  hidden = workdir / "checkpoints/2" / part
  hidden.chmod(0o000)
  code = (
    "import sys; sys.path.insert(0, '.')\n"
    "from shufflenet_jax import errors; from shufflenet_jax.checkpoints import recovery\n"
    f"try: recovery.newest_whole({str(workdir)!r})\n"
    "except errors.UserError as error: print(error); sys.exit(error.status)"
  )
  as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "HOME": "/tmp"}
  ended = subprocess.run([*as_nobody, sys.executable, "-c", code], env=environment, capture_output=True, text=True)
  hidden.chmod(0o755)
  assert (ended.returncode, "cannot be" in ended.stdout and "Permission denied" in ended.stdout) == (2, True), ended
  assert not (workdir / "damaged").exists()


def test_what_orbax_cannot_restore_for_want_of_memory_is_no_damage(two_checkpoints, tmp_path, monkeypatch):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)

  def too_large(*_, **__):
    raise MemoryError

  monkeypatch.setattr(orbax_files, "read_state", too_large)
  with pytest.raises(RunFailed, match="cannot be read now .out of memory"):
    recovery.newest_whole(workdir, print)
  assert not (workdir / "damaged").exists()


def test_a_state_of_another_step_is_damage(tmp_path):
  from configs import quickstart

  with saver.Saver(tmp_path, keep=3) as saves:
    for step in (1, 2):
      saves.save(step, state(1), quickstart.get_config(), ["a"], None)
  said = []
  assert recovery.newest_whole(tmp_path, said.append)[0].step == 1
  assert any("its state is of step 1" in line for line in said)


def test_no_earlier_checkpoint_is_evaluated_in_silence(two_checkpoints, tmp_path, capsys):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  shutil.rmtree(workdir / "checkpoints/2/state")
  with pytest.raises(UserError, match="checkpoints/2 cannot be read .*; move it away to use an earlier one"):
    checkpoint.find(str(workdir)).restore_variables()
  shutil.rmtree(workdir / "checkpoints/2/description")
  assert checkpoint.find(str(workdir)).step == 1
  assert f"{workdir}/checkpoints/2 is half-written" in capsys.readouterr().err


def test_a_save_that_is_not_taken_is_an_error(tmp_path):
  from configs import quickstart

  with pytest.raises(RunFailed, match="checkpoints/1 already exists: another run is training"):
    with saver.Saver(tmp_path, keep=3) as saves:
      saves.save(1, state(1), quickstart.get_config(), ["a"], None)
    with saver.Saver(tmp_path, keep=3) as saves:
      saves.save(1, state(1), quickstart.get_config(), ["a"], None)


def test_an_old_checkpoint_that_cannot_be_removed_is_no_failed_save(tmp_path, monkeypatch):
  from configs import quickstart

  def refuse(*_, **__):
    raise storage.Unavailable("checkpoints/1 cannot be removed now")

  monkeypatch.setattr(storage, "remove_folder", refuse)
  with pytest.raises(RunFailed, match="an old checkpoint cannot be removed .*; that of step 2 is saved"):  # noqa: SIM117
    with saver.Saver(tmp_path, keep=1) as saves:
      for step in (1, 2):
        saves.save(step, state(step), quickstart.get_config(), ["a"], None)
  assert checkpoint.find(tmp_path).step == 2


def test_one_whose_removal_was_cut_short_is_removed(two_checkpoints, tmp_path, monkeypatch):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill comes first
  storage.remove_folder(f"{workdir}/checkpoints/1", marker=checkpoint.DESCRIPTION)
  monkeypatch.undo()
  left = [name for name in os.listdir(workdir / "checkpoints") if name.startswith("1")]
  assert len(left) == 1 and left[0].endswith(".removed")
  assert checkpoint.find(str(workdir)).step == 2
  recovery.newest_whole(workdir, print)
  assert os.listdir(workdir / "checkpoints") == ["2"]


def test_what_a_user_renamed_is_left_alone(two_checkpoints, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  shutil.move(workdir / "checkpoints/1", workdir / "checkpoints/1.removed")
  (workdir / "checkpoints/notes.removed").write_text("mine")
  assert recovery.newest_whole(workdir, print)[0].step == 2
  assert sorted(os.listdir(workdir / "checkpoints")) == ["1.removed", "2", "notes.removed"]


def test_a_checkpoint_that_training_removes_while_it_is_read_is_a_line(two_checkpoints, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(two_checkpoints, workdir)
  found = checkpoint.find(str(workdir))
  shutil.rmtree(workdir / "checkpoints/2")
  with pytest.raises(RunFailed, match="checkpoints/2 was removed while it was read; run the same command again"):
    found.restore_variables()
