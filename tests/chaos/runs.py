"""Real training processes that are killed and started again, and what they left."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.training import metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 16
# A checkpoint every second step: much of a run's time is spent in saves.
OVERRIDES = {
  "model.scale": 0.25,
  "model.repeats": "(1,1,1)",
  "model.lowering": "reference",  # traced and compiled soonest
  "num_train_steps": STEPS,
  "batch_size": 16,
  "eval_batch_size": 100,
  "log_every_steps": 1,
  "eval_every_steps": 8,
  "checkpoint_every_steps": 2,
  "optimizer.warmup_steps": 2,
  "peer_timeout_seconds": 10,
}


def arguments(workdir, data_dir, **overrides) -> list[str]:
  """Of training: the digits with a small network."""
  fields = OVERRIDES | {"data.data_dir": data_dir} | {k.replace("__", "."): v for k, v in overrides.items()}
  return [
    "--config=configs/quickstart.py", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in fields.items())
  ]  # fmt: skip


def environment(compiled) -> dict[str, str]:
  """Compiled programs are shared by all runs, in a folder: starting is what takes them longest."""
  return os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(compiled),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "PYTHON": sys.executable,
    "PYTHONPATH": str(ROOT),
    "TF_NUM_INTEROP_THREADS": "2",
  }


class Process:
  """A training, alone or of several processes, its output in a file."""

  def __init__(self, workdir, data_dir, count: int = 1, more_environment=None, **overrides):
    command = [sys.executable, "-u", "-m", "shufflenet_jax.train"]
    if count > 1:
      command = [str(ROOT / "launch/local.sh"), str(count), "--"]
    self.began = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".log", delete=False) as f:
      self.log = pathlib.Path(f.name)
      self._process = subprocess.Popen(
        command + arguments(workdir, data_dir, **overrides),
        cwd=ROOT,
        env=environment(f"{data_dir}/compiled") | (more_environment or {}),
        stdout=f,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def said(self) -> str:
    return self.log.read_text()

  def wait(self, seconds: float = 300) -> int:
    """Its exit status; a test fails if it takes longer."""
    try:
      return self._process.wait(seconds)
    except subprocess.TimeoutExpired:
      self.kill_all()
      raise AssertionError(f"not done after {seconds} s: {self.said()[-2000:]}") from None

  def running(self) -> bool:
    return self._process.poll() is None

  def wait_for(self, pattern: str, seconds: float = 120) -> bool:
    """Until its output has the pattern; False if it ended without."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
      ended = not self.running()
      if re.search(pattern, self.said()):
        return True
      if ended:
        return False
      time.sleep(0.005)
    raise AssertionError(f"no {pattern!r} after {seconds} s: {self.said()[-2000:]}")

  def wait_until(self, seconds: float) -> bool:
    """Until that long after its start; False if it ended before."""
    while time.monotonic() < self.began + seconds:
      if not self.running():
        return False
      time.sleep(0.005)
    return True

  def signal(self, number: int) -> None:
    if self.running():
      os.kill(self._process.pid, number)

  def kill_all(self) -> None:
    for pid in [*self.pids(), self._process.pid]:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    self._process.wait()

  def pids(self) -> list[int]:
    """Of the processes of launch/local.sh, by process_id."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
      try:
        line = path.read_bytes().decode(errors="replace").split("\0")
        parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
      except (FileNotFoundError, ProcessLookupError):
        continue
      if parent == self._process.pid:
        found |= {int(a.partition("=")[2]): int(path.parent.name) for a in line if a.startswith("--process_id=")}
    return [found[i] for i in sorted(found)]


def outcome(workdir) -> tuple[dict[str, np.ndarray], dict]:
  """The arrays of the final checkpoint, and the evaluation of its step.

  Not the checkpoint's own figures: one that a stop at the very last step left has none, and the next start evaluates.
  """
  found = checkpoint.find(workdir)
  assert found.step == STEPS
  evaluations = [line for line in metrics.read(workdir) if "eval_loss" in line]
  assert evaluations[-1]["step"] == STEPS
  return found.read_arrays(), evaluations[-1]


def assert_same_arrays(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
  """The same names, and under each the same bits."""
  assert arrays.keys() == expected.keys()
  for name in arrays:
    np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)


def assert_same(workdir, reference) -> None:
  """Parameters, optimiser, statistics and evaluation, bit for bit; and each logged step once."""
  arrays, figures = outcome(workdir)
  expected, expected_figures = outcome(reference)
  assert_same_arrays(arrays, expected)
  for name, figure in expected_figures.items():
    # The sum of losses alone depends on how many processes add it up.
    assert figures[name] == (pytest.approx(figure, rel=1e-6) if name == "eval_loss" else figure), name
  logged = [line["step"] for line in metrics.read(workdir) if "train_loss" in line]
  assert logged == list(range(1, STEPS + 1))
