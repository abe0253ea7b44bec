"""A run from its first cell to the end of its time."""

import gzip
import os
import time

from benchmarks.gpu import cells, kernels, measuring
from benchmarks.gpu.cells import Part, Sizes
from benchmarks.gpu.report import Record

# What a cell is expected to take until one of its kind has been measured, mostly for compiling.
FIRST_GUESS_SECONDS = {"train": 120.0, "infer": 60.0}
_TRACED_STEPS = 3


class Run:
  """Measures cells in turn, writes what it finds as it finds it, and skips what would take too long."""

  def __init__(self, folder: str, sizes: Sizes, record: Record, deadline: float):
    """
    Args:
      folder: where the results go.
      sizes: of all cells.
      record: what is filled.
      deadline: by `time.monotonic()`.
    """
    self._folder, self._sizes, self._record, self._deadline = folder, sizes, record, deadline
    self._programs = measuring.Programs(sizes)
    self._now = "nothing"

  def measure(self, numbers: range, with_torch: bool) -> None:
    """Measures the cells of these numbers, counted from 1 in the order of importance."""
    if with_torch:
      from benchmarks.gpu import in_torch

      in_torch.prepare_process()
    chosen = cells.in_order(self._sizes)[numbers.start - 1 : numbers.stop - 1]
    number = dict(zip(chosen, numbers))
    parts, took = cells.parts(chosen, with_torch), {}
    for index, part in enumerate(parts):
      began = time.monotonic()
      left, expected = self._deadline - began, took.get(part.cell.mode, FIRST_GUESS_SECONDS[part.cell.mode])
      self._now = f"cell {number[part.cell]}: {part.cell}: {', '.join(part.names)}"
      if left < expected:
        self._record.skipped.append(self._now)
        continue
      print(f"{self._now}; {left:.0f} s left", flush=True)
      self._one(part, trace=index == 0 and part.cell.mode == "train")
      took[part.cell.mode] = max(took.get(part.cell.mode, 0.0), time.monotonic() - began)
    self._record.save()

  def _one(self, part: Part, trace: bool) -> None:
    self._programs.prepare(part, self._deadline)
    results = measuring.measure(part, self._programs, self._sizes)
    self._record.add(part, results)
    for name, figures in results.items():
      if "failed" not in figures:
        print(f"  {name:15} {figures['ms']:9.2f} ms {figures['images_per_second']:10,.0f} images/s", flush=True)
    if trace and cells.OURS in self._programs.ready:
      self._find_longest_kernels(part, results[cells.OURS]["ms"])

  def _find_longest_kernels(self, part: Part, ms: float) -> None:
    program = self._programs.ready[cells.OURS]
    with gzip.open(os.path.join(self._folder, "train_step.hlo.txt.gz"), "wt") as file:
      file.write(program.hlo)
    try:
      trace = kernels.traced(program.run, _TRACED_STEPS, os.path.join(self._folder, "train_step.trace.json.gz"))
      found = kernels.longest_first(trace, _TRACED_STEPS, program.hlo)
    except Exception as error:  # the profiler's are of many kinds; the figures are worth more than the trace
      self._record.notes.append(f"The step was not traced: {measuring.reason(error)}")
    else:
      self._record.kernels = (f"{part.cell}, {cells.OURS} ({ms:.2f} ms a step)", found)
    self._record.save()

  def abandon(self) -> None:
    """Ends the process at once; to be called from another thread when the time is over."""
    self._record.notes.append(f"Stopped for want of time in {self._now}; what comes after it was not measured either.")
    self._record.save()
    print(f"\nstopped for want of time in {self._now}; what was measured is in {self._folder}", flush=True)
    os._exit(1)
