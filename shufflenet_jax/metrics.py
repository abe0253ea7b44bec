"""Where figures go: the console, TensorBoard event files, `metrics.jsonl` and `curves.png`."""

import contextlib
import functools
import json
import math
import time

from clu import metric_writers
from etils import epath

FILE = "metrics.jsonl"


class JsonLinesWriter(metric_writers.MetricWriter):
  """Appends `{"step": ..., name: value}` lines to a file; each is on disk once written."""

  def __init__(self, path: epath.Path):
    self._file = path.open("a")

  def write_scalars(self, step, scalars):
    values = {k: float(v) for k, v in scalars.items()}
    finite = {k: v for k, v in values.items() if math.isfinite(v)}  # JSON knows no others
    self._file.write(json.dumps({"step": step} | finite) + "\n")
    self._file.flush()

  def _not_for_this_file(self, *args, **kwargs):
    """JSON lines hold scalars only."""

  write_summaries = write_images = write_videos = write_audios = _not_for_this_file
  write_texts = write_histograms = write_hparams = write_pointcloud = _not_for_this_file

  def flush(self):
    self._file.flush()

  def close(self):
    self._file.close()


def read(workdir: str) -> list[dict[str, float]]:
  """The lines of `metrics.jsonl`, oldest first, but for one that was cut off by a kill or a full disk."""
  path = epath.Path(workdir) / FILE
  lines = []
  for line in path.read_text().splitlines() if path.exists() else []:
    with contextlib.suppress(ValueError):
      lines.append(json.loads(line))
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
  workdir = epath.Path(workdir)
  files = {"checkpoints": "checkpoints", "curves": "curves.png", "metrics": FILE}
  lines = [f"  {what:12} {workdir / name}" for what, name in files.items()]
  return [*lines, f"  {'TensorBoard':12} tensorboard --logdir={workdir}"]


def writer(workdir: str, start_step: int, process: tuple[int, int]) -> metric_writers.MetricWriter:
  """Writes TensorBoard events and `metrics.jsonl`, on the first of (index, count) processes.

  Lines beyond `start_step` are dropped from `metrics.jsonl` first: a run that
  died after its last checkpoint has logged steps that will be done again.
  (TensorBoard's files are append-only: it shows those steps twice.)
  """
  if process[0]:
    return metric_writers.MultiWriter([])
  path = epath.Path(workdir) / FILE
  if path.exists():
    kept = [line for line in read(workdir) if line["step"] <= start_step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    partial.replace(path)
  return metric_writers.MultiWriter([metric_writers.SummaryWriter(str(workdir)), JsonLinesWriter(path)])


def draw_curves(workdir: str, title: str) -> epath.Path:
  """Draws loss, accuracy and learning rate against step from `metrics.jsonl` into `curves.png`."""
  from matplotlib.figure import Figure  # no pyplot: no global state, no display

  lines = read(workdir)

  def series(name):
    points = [(line["step"], line[name]) for line in lines if name in line]
    return tuple(zip(*points)) if points else ((), ())

  figure = Figure(figsize=(12, 3.6), layout="constrained")
  panels = {
    "loss": {"train, as optimised": "train_loss", "test, cross-entropy": "eval_loss"},
    "top-1 accuracy": {"train, augmented": "train_accuracy", "test": "eval_top1"},
    "learning rate": {"": "learning_rate"},
  }
  for axes, (label, curves) in zip(figure.subplots(1, len(panels)), panels.items()):
    for name, key in curves.items():
      axes.plot(*series(key), label=name, marker="o" if key.startswith("eval") else None, markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
      axes.legend()
  figure.suptitle(title)
  path = epath.Path(workdir) / "curves.png"
  partial = path.with_suffix(".partial")
  with partial.open("wb") as f:
    figure.savefig(f, format="png", dpi=110)
  return partial.replace(path)


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
