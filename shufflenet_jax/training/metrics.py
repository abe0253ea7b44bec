"""Where figures go: the console, TensorBoard event files, `metrics.jsonl` and `curves.png`."""

import contextlib
import functools
import importlib.util
import io
import json
import math
import os
import time
from collections.abc import Sequence

from shufflenet_jax import storage
from shufflenet_jax.distributed.hosts import Process
from shufflenet_jax.progress import duration
from shufflenet_jax.tasks.task import Task

FILE, CURVES = "metrics.jsonl", "curves.png"


class Logs(contextlib.AbstractContextManager):
  """A run's figures, as TensorBoard events, lines of `metrics.jsonl` and `curves.png`; the first process writes them.

  In a bucket they appear within half a minute, and soon after a checkpoint or an evaluation; see
  `storage.LogFolder`. TensorBoard's files are append-only, so it shows two points for a step that a resumed run
  repeats.
  """

  def __init__(self, workdir: str, lines: list[dict[str, float]], process: Process):
    """
    Args:
      workdir: normalized.
      lines: the first lines of `metrics.jsonl`, from before a resume.
      process: which of the run's processes this is.
    """
    self._lines = list(lines)
    self._writes = process.index == 0
    if not self._writes:
      return
    self._events = None
    with storage.translate_errors(workdir, "written"):
      self._folder = storage.LogFolder(workdir)
      path = os.path.join(self._folder.folder, FILE)
      storage.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
      self._file = open(path, "a")  # noqa: SIM115  closed by __exit__
      if has_tensorboard_writer():
        from clu import metric_writers  # which imports TensorFlow

        self._events = metric_writers.SummaryWriter(self._folder.folder)

  def write(self, step: int, figures: dict[str, float]) -> None:
    """Adds TensorBoard's scalars and a line, which leaves out values that are not finite: JSON cannot hold them."""
    if not self._writes:
      return
    values = {k: float(v) for k, v in figures.items()}
    line = {"step": step} | {k: v for k, v in values.items() if math.isfinite(v)}
    self._lines.append(line)
    with self._folder.writing():
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
      if self._events:
        self._events.write_scalars(step, values)
        self._events.flush()

  def draw_curves(self, title: str, panels: dict[str, dict[str, str]]) -> None:
    """Draws `curves.png` from the lines so far; see `curves`."""
    if self._writes:
      with self._folder.writing():
        storage.write_bytes(os.path.join(self._folder.folder, CURVES), curves(self._lines, title, panels))

  def sync_soon(self) -> None:
    """If the work directory is in a bucket, uploads what was written without waiting for the next half minute."""
    if self._writes:
      self._folder.sync_soon()

  def __exit__(self, kind, *exception):
    if self._writes:
      with contextlib.suppress(Exception) if kind else self._folder.writing():
        self._file.close()
        if self._events:
          self._events.close()
      self._folder.__exit__(kind, *exception)


def has_tensorboard_writer() -> bool:
  """Whether the packages that write TensorBoard's files are installed; without them, runs only lack these files."""
  return all(importlib.util.find_spec(package) for package in ("clu", "tensorflow"))


def read(workdir: str) -> list[dict[str, float]]:
  """The lines of `metrics.jsonl`, oldest first, without lines that are not JSON, as a kill or a full disk may leave.

  [] if there is no file.

  Raises:
    Refused, Unavailable: it cannot be read.
  """
  try:
    text = storage.read_bytes(storage.join(storage.normalize(workdir), FILE)).decode(errors="replace")
  except FileNotFoundError:
    return []
  lines = []
  for line in text.splitlines():
    with contextlib.suppress(ValueError):
      values = json.loads(line)
      if isinstance(values, dict) and isinstance(values.get("step"), int):
        lines.append(values)
  return lines


def console(process: Process):
  """A `print` that flushes, on the first process; on the others, a function that does nothing."""
  return functools.partial(print, flush=True) if process.index == 0 else lambda *args, **options: None


def mean(steps: list[dict[str, float]], names: Sequence[str]) -> dict[str, float]:
  """The metrics of an interval.

  Args:
    steps: what `step.train_step` returned at each of its steps.
    names: of the task's metrics.

  Returns:
    `train_<name>`: means over the steps that were not skipped, absent if all were; `learning_rate` and
    `skipped_steps` of the last step.
  """
  kept = [s for s in steps if s["finite"]]
  means = {f"train_{k}": sum(float(s[k]) for s in kept) / len(kept) for k in names if kept}
  return means | {"learning_rate": float(steps[-1]["learning_rate"]), "skipped_steps": int(steps[-1]["skipped"])}


def places(workdir: str) -> list[str]:
  """Where a run's files are, one line for each kind."""
  workdir = storage.normalize(workdir)
  files = {"checkpoints": "checkpoints", "curves": CURVES, "metrics": FILE}
  lines = [f"  {what:12} {storage.join(workdir, name)}" for what, name in files.items()]
  if not has_tensorboard_writer():
    return lines
  return [*lines, f"  {'TensorBoard':12} tensorboard --logdir={workdir}"]


def curves(lines: list[dict[str, float]], title: str, panels: dict[str, dict[str, str]]) -> bytes:
  """Curves over the steps, as a PNG file: the task's panels (see `Task.panels`), and the learning rate."""
  from matplotlib.figure import Figure  # no pyplot: no global state, no display

  def series(name):
    points = [(line["step"], line[name]) for line in lines if name in line]
    return tuple(zip(*points)) if points else ((), ())

  figure = Figure(figsize=(12, 3.6), layout="constrained")
  panels = panels | {"learning rate": {"": "learning_rate"}}
  for axes, (label, lines_of) in zip(figure.subplots(1, len(panels)), panels.items()):
    for name, key in lines_of.items():
      axes.plot(*series(key), label=name, marker="o" if key.startswith("eval") else None, markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if len(lines_of) > 1:
      axes.legend()
  figure.suptitle(title)
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=110)
  return png.getvalue()


class Progress:
  """Console lines: step, percent done, metrics, images/s, share of the time spent waiting for data, time left."""

  def __init__(self, start_step: int, num_steps: int, batch_size: int, feed):
    """`feed`: a `prefetch.Feed`, or anything else with `waited_seconds`."""
    self._num_steps, self._batch_size, self._feed = num_steps, batch_size, feed
    self.restart(start_step)

  def restart(self, step: int):
    """Begins an interval: time spent before (compilation, an evaluation) is not counted."""
    self._last_step, self._last_time, self._last_waited = step, time.perf_counter(), self._feed.waited_seconds

  def line(self, step: int, means: dict[str, float], task: Task) -> tuple[str, dict[str, float]]:
    """The line for a step, and the speed since the last line.

    Args:
      step: number of steps done.
      means: as `mean` returns them.
      task: describes its metrics.

    Returns:
      (line, {`images_per_second`, `data_wait`}): `data_wait` is the fraction of the time in which the devices were idle
      for want of a batch. The dict is empty if nothing was timed.
    """
    text = f"step {step}/{self._num_steps} ({100 * step / self._num_steps:.0f} %)"
    if "train_loss" in means:
      text += f"  {task.describe_training({name: means[f'train_{name}'] for name in task.train_metrics})}"
    text += f"  learning rate {means['learning_rate']:.4g}"
    images = (step - self._last_step) * self._batch_size
    if not images:
      return text, {}
    seconds = max(time.perf_counter() - self._last_time, 1e-9)
    rate, wait = images / seconds, (self._feed.waited_seconds - self._last_waited) / seconds
    left = (self._num_steps - step) * self._batch_size / rate
    self.restart(step)
    text += f"  {rate:,.0f} images/s  data wait {100 * wait:.0f} %  {duration(left)} left"
    return text, {"images_per_second": rate, "data_wait": wait}
