"""Faults at each moment of a run: nothing is lost, and the exit status shows whether another start may help."""

import copy
import os

import jax
import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import CommandEnded, RunFailed, UserError
from shufflenet_jax.storage import client, log_folder
from shufflenet_jax.training import evaluation, metrics
from shufflenet_jax.training.loop import train
from tests.bucket import faults
from tests.bucket.faults import Fault, cut, reset, slow, status
from tests.conftest import small_config

ONE = jax.devices()[:1]
PASSES, FAILS, WRONG = 0, RunFailed.status, UserError.status


def _expired(bucket, refreshable):
  """For google-cloud-storage: in this process TensorFlow has a token that it never renews."""
  made = faults.expired_tokens(bucket.server.metadata.issued, refreshable)
  made[0].client = "google"
  return made


# Transient faults, all of them in one run.
PASSING = (
  lambda b: [Fault(status(503), times=3)],
  lambda b: [Fault(status(429), times=3)],
  lambda b: [Fault(reset(), times=3)],
  lambda b: [Fault(cut(100), times=3)],
  lambda b: [Fault(slow(0.3), times=5)],
  lambda b: _expired(b, refreshable=True),
)
# kind -> (the faults to order, exit status of a command that meets them)
KINDS = {
  "all that passes": (lambda b: [fault for make in PASSING for fault in make(b)], PASSES),
  "a token that cannot be renewed": (lambda b: _expired(b, refreshable=False), FAILS),
  "503 for longer than its patience": (lambda b: [Fault(status(503))], FAILS),
  "the bucket is gone": (lambda b: faults.no_such_bucket(), WRONG),
  "no permission to read": (lambda b: faults.no_leave_to_read(), WRONG),
  "no permission to write": (lambda b: faults.no_leave_to_write(), WRONG),
}
MOMENTS = ("start", "middle", "save", "restore", "evaluation")


@pytest.fixture(scope="module")
def prepared(data_dir, tmp_path_factory):
  """(config, data folder, undisturbed work directory, its final state, a work directory that was stopped at step 6)."""
  config = small_config(data_dir)
  config.model.lowering = "reference"  # traced soonest
  folder = tmp_path_factory.mktemp("prepared")
  state, _ = train(config, str(folder / "whole"), ONE)
  train(config, str(folder / "stopped"), ONE, stop_after_step=6)
  return config, data_dir, folder / "whole", state, folder / "stopped"


@pytest.fixture
def config(prepared, here):
  """The config of a run with its data in the bucket."""
  config = copy.deepcopy(prepared[0])
  here.upload_folder(f"{prepared[1]}/digits", "data/digits")
  config.data.data_dir = f"{here.url}/data"
  return config


@pytest.fixture
def impatient(monkeypatch):
  monkeypatch.setattr(client, "PATIENCE_SECONDS", 3)
  monkeypatch.setattr(client, "EXPIRED_PATIENCE_SECONDS", 1)
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 0.5)
  monkeypatch.setattr(log_folder, "MIN_SYNC_SECONDS", 0.2)
  client.check_bucket_once.cache_clear()
  yield
  client.check_bucket_once.cache_clear()


@pytest.fixture
def unlimited(here):
  """For runs of seconds, which write logs several times a second: no limit of one write per second."""
  here.server.store.one_write_a_second = False
  yield
  here.server.store.one_write_a_second = True


def at(moment, bucket, order, monkeypatch):
  """Injects faults now, or when their moment comes."""

  def once(*_):
    if not bucket.faults.all():
      bucket.faults.add(*order)

  if moment in ("start", "restore"):
    once()
  elif moment == "middle":
    write = metrics.Logs.write
    monkeypatch.setattr(metrics.Logs, "write", lambda self, s, f: (write(self, s, f), s == 8 and once())[0])
  elif moment == "save":
    for fault in order:
      if "token" not in (fault.operations or ()):
        fault.name = "checkpoints/6/"
    once()
  else:
    run = evaluation.run
    monkeypatch.setattr(evaluation, "run", lambda *args: (once(), run(*args))[1])


def checkpoints(bucket):
  return {n.split("/")[2] for n in bucket.names("run/checkpoints/") if n.endswith(checkpoint.DESCRIPTION)}


def assert_same(state, expected):
  jax.tree.map(np.testing.assert_array_equal, state, expected)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_the_end_says_whether_to_try_again(
  kind, moment, prepared, config, here, impatient, unlimited, capfd
):
  """It ends with the same bits as an undisturbed run in a local directory, with local data."""
  workdir, expected_state = f"{here.url}/run", prepared[3]
  if kind == "all that passes":
    client.PATIENCE_SECONDS = 30  # several may strike one request; `impatient` sets it back
  make, expected = KINDS[kind]
  if moment == "restore":
    here.upload_folder(prepared[4], "run")
  before = checkpoints(here)
  hooks = pytest.MonkeyPatch()
  at(moment, here, make(here), hooks)
  if (kind, moment) == ("no permission to read", "save"):
    expected = PASSES  # a save only writes
  ended, capture = PASSES, None
  try:
    state, _ = train(config, workdir, ONE)
  except CommandEnded as error:
    ended, capture = error.status, str(error)
  finally:
    hooks.undo()
  struck = sum(fault.struck for fault in here.faults.all())
  assert ended == expected, capture
  if expected != PASSES:
    assert struck
    assert "\n" not in capture and here.url in capture
  assert before <= checkpoints(here)  # which nothing took away
  assert not [name for name in here.names("run/damaged/") if name.endswith(checkpoint.DESCRIPTION)]
  here.faults.clear()
  if ended != PASSES:
    client.check_bucket_once.cache_clear()
    capfd.readouterr()
    saved = max(map(int, checkpoints(here)), default=0)
    state, _ = train(config, workdir, ONE)
    assert (f"resuming from {workdir}/checkpoints/{saved}" in capfd.readouterr().out) == (saved > 0)
  assert_same(state, expected_state)
  steps = [line["step"] for line in metrics.read(workdir) if "train_loss" in line]
  assert steps == sorted(set(steps))


@pytest.mark.parametrize("seed", range(int(os.environ.get("RANDOM_FAULT_RUNS", "3"))))
def test_a_tenth_of_all_requests_failing_changes_no_bit(seed, prepared, config, here, unlimited, monkeypatch):
  monkeypatch.setattr(log_folder, "SYNC_SECONDS", 0.5)
  config.checkpoint_every_steps = 2
  here.faults.add(*faults.some_fail(0.1, seed=seed))
  state, _ = train(config, f"{here.url}/run", ONE)
  assert sum(fault.struck for fault in here.faults.all()) > 5
  assert_same(state, prepared[3])


@pytest.mark.parametrize(
  "name, code",
  [("state/_METADATA", 401), ("state/manifest.ocdbt", 403), ("description/metadata", 503), ("checkpoints/$", 403)],
)
def test_one_file_of_a_good_checkpoint_that_cannot_be_read_is_no_damage(
  code, name, prepared, config, here, impatient, unlimited
):
  workdir = f"{here.url}/run"
  here.upload_folder(prepared[2], "run")
  here.faults.add(Fault(status(code), {"read", "list"}, name=name))
  with pytest.raises(CommandEnded) as raised:
    train(config, workdir, ONE)
  assert raised.value.status == (WRONG if code == 403 else FAILS)
  assert not here.names("run/damaged")
  assert here.get("run/metrics.jsonl")
  with pytest.raises(CommandEnded) as raised:
    evaluation.evaluate_checkpoint(found := checkpoint.find(workdir), found.config)
  assert raised.value.status == (WRONG if code == 403 else FAILS)


def test_damage_in_a_bucket_is_noticed_and_the_checkpoint_before_is_used(prepared, config, here, unlimited, capsys):
  here.upload_folder(prepared[2], "run")
  biggest = max((n for n in here.names("run/checkpoints/12/state/")), key=lambda n: len(here.get(n)))
  data = bytearray(here.get(biggest))
  data[len(data) // 2] ^= 64
  here.put(biggest, bytes(data))
  state, _ = train(config, f"{here.url}/run", ONE)
  said = capsys.readouterr().out
  assert "checkpoints/12 is not whole" in said and "resuming from" in said
  assert any(n.startswith("run/damaged/12.0/") for n in here.names("run/"))
  assert_same(state, prepared[3])


def test_a_move_of_a_damaged_one_that_is_refused_is_one_line(prepared, config, here, unlimited, impatient):
  here.upload_folder(prepared[2], "run")
  here.put("run/checkpoints/12/description/metadata", b"{}")
  fault = here.faults.add(Fault(status(403), {"rewrite"}, skip=3))
  with pytest.raises(UserError, match="checkpoints/12 cannot be moved: no permission"):
    train(config, f"{here.url}/run", ONE)
  assert fault.struck
  here.faults.clear()
  state, _ = train(config, f"{here.url}/run", ONE)
  assert_same(state, prepared[3])


def test_a_profile_is_written_to_a_bucket(config, here, unlimited):
  train(config, f"{here.url}/run", ONE, stop_after_step=2, profile_steps=range(1, 3))
  assert [name for name in here.names("run/profile/") if name.endswith(".xplane.pb")]


def test_a_profile_that_cannot_be_written_does_not_end_the_training(prepared, config, here, unlimited, capsys):
  fault = here.faults.add(Fault(status(403), name="run/profile/"))
  state, _ = train(config, f"{here.url}/run", ONE, profile_steps=range(1, 3))
  assert fault.struck
  assert "note: the profile cannot be written:" in capsys.readouterr().err
  assert_same(state, prepared[3])
