"""Where figures go: the console, TensorBoard event files, `metrics.jsonl` and `curves.png`."""

import contextlib
import functools
import io
import json
import math
import os
import time

from shufflenet_jax import storage

FILE, CURVES = "metrics.jsonl", "curves.png"


class Logs(contextlib.AbstractContextManager):
  """A run's figures, as TensorBoard events, lines of `metrics.jsonl` and `curves.png`; the first process writes them.

  In a bucket they appear within half a minute, and soon after a checkpoint or an evaluation; see
  `storage.LogFolder`. (TensorBoard's files are append-only: it shows steps that were done again twice.)
  """

  def __init__(self, workdir: str, lines: list[dict[str, float]], process: tuple[int, int]):
    """
    Args:
      workdir: normalized.
      lines: of `metrics.jsonl`, which begins with them.
      process: (index, count).
    """
    self._lines = list(lines)
    self._writes = process[0] == 0
    if not self._writes:
      return
    from clu import metric_writers  # which imports TensorFlow

    with storage.translate_errors(workdir, "written"):
      self._folder = storage.LogFolder(workdir)
      path = os.path.join(self._folder.folder, FILE)
      storage.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
      self._file = open(path, "a")  # noqa: SIM115  closed by __exit__
      self._events = metric_writers.SummaryWriter(self._folder.folder)

  def write(self, step: int, figures: dict[str, float]) -> None:
    """Adds a line, and TensorBoard's scalars. What is not finite is left out of the line: JSON has no such numbers."""
    if not self._writes:
      return
    values = {k: float(v) for k, v in figures.items()}
    line = {"step": step} | {k: v for k, v in values.items() if math.isfinite(v)}
    self._lines.append(line)
    with self._folder.writing():
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
      self._events.write_scalars(step, values)
      self._events.flush()

  def draw_curves(self, title: str) -> None:
    """Draws `curves.png` from the lines so far."""
    if self._writes:
      with self._folder.writing():
        storage.write_bytes(os.path.join(self._folder.folder, CURVES), curves(self._lines, title))

  def sync_soon(self) -> None:
    """Has what was written carried to a bucket soon."""
    if self._writes:
      self._folder.sync_soon()

  def __exit__(self, kind, *exception):
    if self._writes:
      with contextlib.suppress(Exception) if kind else self._folder.writing():
        self._file.close()
        self._events.close()
      self._folder.__exit__(kind, *exception)


def read(workdir: str) -> list[dict[str, float]]:
  """The lines of `metrics.jsonl`, oldest first, but for one that was cut off by a kill or a full disk.

  Raises:
    Refused, Unavailable: it cannot be read. Where there is no such file there are no lines.
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


def console(process: tuple[int, int]):
  """`print` on the first of (index, count) processes, flushed; nothing on the others."""
  return functools.partial(print, flush=True) if process[0] == 0 else lambda *args, **options: None


def mean(steps: list[dict[str, float]]) -> dict[str, float]:
  """Means over those of an interval's steps that were not skipped; learning rate and `skipped_steps` are the last's.

  Where all were skipped, there are no means.
  """
  kept = [s for s in steps if s["finite"]]
  means = {f"train_{k}": sum(float(s[k]) for s in kept) / len(kept) for k in ("loss", "accuracy") if kept}
  return means | {"learning_rate": float(steps[-1]["learning_rate"]), "skipped_steps": int(steps[-1]["skipped"])}


def places(workdir: str) -> list[str]:
  """Where a run's files lie, a line each."""
  workdir = storage.normalize(workdir)
  files = {"checkpoints": "checkpoints", "curves": CURVES, "metrics": FILE}
  lines = [f"  {what:12} {storage.join(workdir, name)}" for what, name in files.items()]
  return [*lines, f"  {'TensorBoard':12} tensorboard --logdir={workdir}"]


def curves(lines: list[dict[str, float]], title: str) -> bytes:
  """Loss, accuracy and learning rate against step, as a PNG file."""
  from matplotlib.figure import Figure  # no pyplot: no global state, no display

  def series(name):
    points = [(line["step"], line[name]) for line in lines if name in line]
    return tuple(zip(*points)) if points else ((), ())

  figure = Figure(figsize=(12, 3.6), layout="constrained")
  panels = {
    "loss": {"train, as optimised": "train_loss", "test, cross-entropy": "eval_loss"},
    "top-1 accuracy": {"train, augmented": "train_accuracy", "test": "eval_top1"},
    "learning rate": {"": "learning_rate"},
  }
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
  """Console lines: step, percent done, figures, images/s, share of the time spent waiting for data, time left."""

  def __init__(self, start_step: int, num_steps: int, batch_size: int, feed):
    """`feed` tells the `waited_seconds` so far, as `feed.Feed` does."""
    self._num_steps, self._batch_size, self._feed = num_steps, batch_size, feed
    self.restart(start_step)

  def restart(self, step: int):
    """Begins an interval: what came before (compilation, an evaluation) is not counted."""
    self._last_step, self._last_time, self._last_waited = step, time.perf_counter(), self._feed.waited_seconds

  def line(self, step: int, figures: dict[str, float]) -> tuple[str, dict[str, float]]:
    """The line for this step; and `images_per_second` and `data_wait` since the last, unless nothing was timed.

    `data_wait` is the fraction of the time in which the devices had nothing to do because no batch was there.
    """
    text = f"step {step}/{self._num_steps} ({100 * step / self._num_steps:.0f} %)"
    if "train_loss" in figures:
      text += f"  loss {figures['train_loss']:.4f}  accuracy {100 * figures['train_accuracy']:.1f} %"
    text += f"  learning rate {figures['learning_rate']:.4g}"
    images = (step - self._last_step) * self._batch_size
    if not images:
      return text, {}
    seconds = max(time.perf_counter() - self._last_time, 1e-9)
    rate, wait = images / seconds, (self._feed.waited_seconds - self._last_waited) / seconds
    left = (self._num_steps - step) * self._batch_size / rate
    self.restart(step)
    text += f"  {rate:,.0f} images/s  data wait {100 * wait:.0f} %  {duration(left)} left"
    return text, {"images_per_second": rate, "data_wait": wait}


def duration(seconds: float) -> str:
  """`2 h 05 min`, `3 min 20 s` or `8 s`."""
  seconds = round(seconds)
  if seconds >= 3600:
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
  return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
