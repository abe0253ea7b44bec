"""Whole runs in processes of their own, with data, checkpoints and logs in a bucket, end like local ones."""

import json
import signal
import subprocess
import sys
import time

import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.training import metrics
from tests.bucket.faults import Fault, status
from tests.chaos import runs

STEPS = 100
FIELDS = {
  "num_train_steps": STEPS,
  "log_every_steps": 10,
  "eval_every_steps": 50,
  "checkpoint_every_steps": 20,
}


def start(bucket, workdir, data_dir, compiled, count=1):
  """A training of 100 steps with a checkpoint every 20; a bucket if there is one in its arguments."""
  environment = bucket.environment(JAX_COMPILATION_CACHE_DIR=str(compiled))
  return runs.Process(workdir, data_dir, count, environment, **FIELDS)


def arrays_of(workdir):
  found = checkpoint.find(str(workdir))
  assert found.step == STEPS
  return found.read_arrays()


def assert_same(workdir, other):
  runs.assert_same_arrays(arrays_of(workdir), arrays_of(other))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
  """Of programs that all runs share."""
  return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def local(bucket_server, compiled, tmp_path_factory):
  """The undisturbed run in a local directory, with local data."""
  from tests.bucket.bucket import EmulatedBucket

  folder = tmp_path_factory.mktemp("local")
  process = start(EmulatedBucket(bucket_server, "not-used"), folder / "run", folder / "data", compiled)
  assert process.wait() == 0, process.said()
  return folder / "run"


def when_saved(bucket, process, step):
  """Waits until that step's checkpoint is in the bucket."""
  while process.running() and f"run/checkpoints/{step}/description/metadata" not in bucket.names("run/checkpoints"):
    time.sleep(0.005)
  assert process.running(), process.said()


def test_killed_twice_and_resumed_ends_as_a_local_run(here, compiled, local, tmp_path):
  url, data = f"{here.url}/run", f"{here.url}/data"
  for step in (20, 60):
    process = start(here, url, data, compiled)
    when_saved(here, process, step)
    process.kill_all()
  process = start(here, url, data, compiled)
  assert process.wait() == 0, process.said()
  assert "resuming from" in process.said()
  assert "Traceback" not in process.said()
  assert_same(url, local)
  lines = [line["step"] for line in metrics.read(url) if "train_loss" in line]
  assert lines == sorted(set(lines))
  assert here.get("run/curves.png").startswith(b"\x89PNG")
  events = b"".join(here.get(name) for name in here.names("run/events"))
  assert b"train_loss" in events
  assert not [name for name in here.too_fast if "checkpoints" in name or "metrics" in name or "events" in name]
  # A kill may have interrupted a save, or the removal of an old checkpoint.
  explained = ("half-written", "as after an interrupted removal")
  assert not here.names("run/damaged") or any(words in process.said() for words in explained)
  # At the end there are only the files that the README lists.
  kinds = {name.removeprefix("run/").split("/")[0].split(".")[0] for name in here.names("run/")}
  assert kinds <= {"checkpoints", "config", "curves", "damaged", "events", "machine", "metrics"}


def test_sigterm_saves_and_the_commands_read_what_it_left(here, compiled, tmp_path):
  url, data = f"{here.url}/run", f"{here.url}/data"
  process = start(here, url, data, compiled)
  when_saved(here, process, 20)
  process.signal(signal.SIGTERM)
  assert process.wait() == 75, process.said()
  step = checkpoint.find(url).step
  assert f"step {step} of {STEPS}" in process.said()

  def command(module, *arguments):
    environment = runs.environment(compiled) | here.environment()
    done = subprocess.run(
      [sys.executable, "-m", f"shufflenet_jax.{module}", *arguments],
      cwd=runs.ROOT, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout

  figures = json.loads(command("evaluate", f"--checkpoint={url}").splitlines()[-1])
  assert (figures["step"], figures["examples"]) == (step, 355)
  command(
    "data.export", "--config=configs/quickstart.py", f"--config.data.data_dir={data}", f"--to={here.url}/pictures",
    "--count=3",
  )  # fmt: skip
  pictures = [f"{here.url}/{name}" for name in here.names("pictures/")]
  answers = [json.loads(line) for line in command("predict", f"--checkpoint={url}", "--json", *pictures).splitlines()]
  assert [a["image"] for a in answers] == pictures
  answers = command("predict", f"--checkpoint={url}", "--json", f"{here.url}/pictures").splitlines()
  assert [json.loads(line)["image"] for line in answers] == pictures
  figures = json.loads(command("evaluate", f"--checkpoint={url}", f"--data={here.url}/pictures").splitlines()[-1])
  assert figures["examples"] == 3
  process = runs.Process(
    f"{here.url}/tuned", data, 1, here.environment(JAX_COMPILATION_CACHE_DIR=str(compiled)),
    init_from=url, num_train_steps=4, checkpoint_every_steps=2,
  )  # fmt: skip
  assert process.wait() == 0, process.said()


@pytest.mark.parametrize(
  "files, fields, seconds",
  [
    ("train", {"batch_size": 64, "eval_every_steps": 100}, 0),  # stops while batches that were read before remain
    ("train", {"batch_size": 64, "eval_every_steps": 100}, 1),  # after them, usually
    ("test", {"eval_every_steps": 30}, 1),
  ],
  ids=["training has batches left", "training waits", "evaluation waits"],
)
def test_sigterm_is_obeyed_while_data_are_late(here, compiled, files, fields, seconds):
  """No data is in memory and the bucket gives no more, so that TensorFlow waits for a minute before it retries."""
  url, data = f"{here.url}/run", f"{here.url}/data"

  def start_reading():
    patient = {"GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "60000000"}
    environment = here.environment(JAX_COMPILATION_CACHE_DIR=str(compiled), **patient)
    return runs.Process(url, data, 1, environment, **FIELDS | fields, data__shuffle_bytes=1000)

  process = start_reading()
  when_saved(here, process, 20)
  fault = here.faults.add(Fault(status(503), name=f"^data/.*-{files}"))
  while not fault.struck and process.running():
    time.sleep(0.005)
  time.sleep(seconds)
  process.signal(signal.SIGTERM)
  assert process.wait(30) == 75, process.said()
  step = checkpoint.find(url).step
  assert f"stopped at step {step} of {STEPS}, which is saved" in process.said()
  assert metrics.read(url)[-1]["step"] == step
  here.faults.clear()
  process = start_reading()
  assert process.wait() == 0, process.said()
  assert f"resuming from {url}/checkpoints/{step}" in process.said()


def test_two_processes_in_a_bucket_end_as_in_a_local_directory(here, compiled, tmp_path):
  local_run = start(here, tmp_path / "run", tmp_path / "data", compiled, count=2)
  assert local_run.wait() == 0, local_run.said()
  process = start(here, f"{here.url}/run", f"{here.url}/data", compiled, count=2)
  when_saved(here, process, 40)
  process.signal(signal.SIGTERM)
  assert process.wait() in (75, 0), process.said()
  process = start(here, f"{here.url}/run", f"{here.url}/data", compiled, count=2)
  assert process.wait() == 0, process.said()
  assert_same(f"{here.url}/run", tmp_path / "run")


def test_the_requests_of_a_run_are_counted(here, compiled):
  """Training steps send no requests; start-up, saves, evaluations and uploads of logs do."""
  counts = {}
  for steps in (20, 40):
    here.delete("")
    url, data = f"{here.url}/run", f"{here.url}/data"
    warm = runs.Process(
      f"{here.url}/warm", data, 1, here.environment(JAX_COMPILATION_CACHE_DIR=str(compiled)), num_train_steps=3
    )
    assert warm.wait() == 0, warm.said()
    here.records.clear()
    process = runs.Process(
      url, data, 1, here.environment(JAX_COMPILATION_CACHE_DIR=str(compiled)),
      num_train_steps=steps, log_every_steps=1, eval_every_steps=1000, checkpoint_every_steps=1000,
    )  # fmt: skip
    assert process.wait() == 0, process.said()
    counts[steps] = len([r for r in here.records.all() if r.operation not in ("token", "metadata", "bucket")])
  print(counts)
  assert abs(counts[40] - counts[20]) <= 12  # a save is of a few files more or less
