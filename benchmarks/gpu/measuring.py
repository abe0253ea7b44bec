"""Prepares the functions of a cell and lets them take turns. What fails is recorded, and the others are measured."""

import concurrent.futures
import functools
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.gpu import cells, in_jax
from benchmarks.gpu.cells import Part, Sizes
from benchmarks.gpu.in_jax import Program

_UNTIMED = 0.3  # of a turn: the first steps after another function's turn find other data in the caches


class Programs:
  """The functions of one cell, kept for its next part.

  Attributes:
    ready: name -> program.
    failures: name -> why there is none.
  """

  def __init__(self, sizes: Sizes):
    self._sizes = sizes
    self._cell: cells.Cell | None = None
    self._too_slow: set[tuple[str, str]] = set()  # (name, mode) of what was not compiled in time
    self.ready: dict[str, Program] = {}
    self.failures: dict[str, str] = {}

  def prepare(self, part: Part, deadline: float) -> None:
    """Compiles what the part needs and is not ready.

    PyTorch compiles and chooses its convolutions first, while ours are traced, which does not use the device. Then
    ours compile in threads, where XLA chooses convolutions by measuring one at a time.

    Args:
      part: what is measured next.
      deadline: by `time.monotonic()`, when to give up.
    """
    if part.cell != self._cell:
      self._begin(part.cell)
    missing = [name for name in part.names if name not in self.ready and name not in self.failures]
    ours = [name for name in missing if name not in cells.TORCH]
    traced = {name: in_thread(in_jax.lowered, part.cell, self._sizes, name) for name in ours}
    for name in missing:
      if name in cells.TORCH:
        from benchmarks.gpu import in_torch

        self._keep(name, functools.partial(in_torch.program, part.cell, self._sizes, name))
    compiling = {name: in_thread(lambda result=result: result.result()()) for name, result in traced.items()}
    for index, (name, result) in enumerate(compiling.items()):
      self._keep(name, functools.partial(result.result, max(0, deadline - time.monotonic())))
      if index == 0:
        deadline = min(deadline, time.monotonic() + self._sizes.patience_seconds)

  def _keep(self, name: str, make: Callable[[], Program]) -> None:
    try:
      self.ready[name] = make()
    except TimeoutError:
      self._too_slow.add((name, self._cell.mode))
      self.failures[name] = "was not compiled in time; its compilation went on beside what was measured next"
    except Exception as error:  # each library has its own, of many kinds; the others can still be measured
      self.failures[name] = reason(error)
    print(f"  {name}: {self.failures.get(name) or f'ready after {self.ready[name].prepare_seconds:.0f} s'}", flush=True)

  def _begin(self, cell: cells.Cell) -> None:
    """Gives up the programs of the cell before."""
    slow = "was not tried, as it was not compiled in time in an earlier cell"
    self._cell, self.ready = cell, {}
    self.failures = {name: slow for name, mode in self._too_slow if mode == cell.mode}
    gc.collect()
    try:
      if in_torch := sys.modules.get("benchmarks.gpu.in_torch"):
        in_torch.release_memory()
    except Exception as error:  # of any kind, if torch.compile does not work on this machine
      self.failures |= dict.fromkeys(cells.TORCH, reason(error))


def in_thread(function: Callable, *arguments) -> concurrent.futures.Future:
  """Calls the function in a thread that does not keep the process from ending. XLA compiles without Python's lock."""
  future = concurrent.futures.Future()

  def call():
    try:
      future.set_result(function(*arguments))
    except Exception as error:
      future.set_exception(error)

  threading.Thread(target=call, daemon=True).start()
  return future


def reason(error: Exception) -> str:
  """One line that explains a failure; it begins with "out of memory" if that is what happened."""
  text = " ".join(str(error).split())[:300]
  if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
    return f"out of memory: {text}"
  return f"{type(error).__name__}: {text}"


def measure(part: Part, programs: Programs, sizes: Sizes) -> dict:
  """Times the part's functions that are ready.

  Returns:
    name -> `ms` (the median over the rounds), `rounds_ms`, `images_per_second`, `speedup` (PyTorch's median, compiled
    if that ran, over this one), `memory_gib` and `prepare_seconds`; or `failed`, a sentence.
  """
  runs = {name: programs.ready[name].run for name in part.names if name in programs.ready}
  times, failures = take_turns(runs, sizes.rounds, sizes.turn_seconds)
  failures = {name: why for name, why in programs.failures.items() if name in part.names} | failures
  ms = {name: statistics.median(values) for name, values in times.items()}
  base = next((ms[name] for name in cells.TORCH if name in ms), None)
  results = {}
  for name in part.names:
    if name in failures:
      programs.ready.pop(name, None)  # a step that failed may have lost its state
      programs.failures[name] = failures[name]
      results[name] = {"failed": failures[name]}
      continue
    results[name] = {
      "ms": ms[name],
      "rounds_ms": times[name],
      "images_per_second": 1000 * part.cell.batch / ms[name],
      "speedup": base / ms[name] if base else None,
      "memory_gib": programs.ready[name].memory_gib,
      "prepare_seconds": programs.ready[name].prepare_seconds,
    }
  return results


def take_turns(
  runs: dict[str, Callable[[int], None]], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, str]]:
  """Milliseconds of a step of each function in each round, and why functions failed.

  A turn is a number of steps with one wait at their end, as in training, where a step is dispatched before the one
  before it has ended. Without its untimed part it lasts about as long as `seconds`.
  """
  steps, times, failures = {}, {name: [] for name in runs}, {}

  def attempt(name: str, action: Callable[[str], None]) -> None:
    try:
      if name not in failures:
        action(name)
    except Exception as error:  # of many kinds; out of memory, for instance
      failures[name] = reason(error)
      del times[name]

  def count_steps(name: str) -> None:
    runs[name](2)
    steps[name] = max(1, round(seconds / _timed(runs[name], 2)))

  def turn(name: str) -> None:
    runs[name](max(1, round(steps[name] * _UNTIMED)))
    times[name].append(1000 * _timed(runs[name], steps[name]))

  for action in (count_steps, *[turn] * rounds):
    for name in runs:
      attempt(name, action)
  return times, failures


def _timed(run: Callable[[int], None], steps: int) -> float:
  """Seconds of one step."""
  began = time.perf_counter()
  run(steps)
  return (time.perf_counter() - began) / steps
