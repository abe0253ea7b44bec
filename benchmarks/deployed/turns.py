"""Times functions in turns, so that other work on the machine affects all of them alike."""

import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping

from shufflenet_jax.progress import ProgressLine

# What is measured: the time that passes, or the processor time of the process, without that of others on its core.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_UNTIMED = 0.3  # of a turn: the first calls after another function's turn find its data in the caches


def take_turns(
  functions: Mapping[Hashable, Callable[[], None]], rounds: int, seconds: float, clock: str = "wall"
) -> dict[Hashable, list[float]]:
  """Milliseconds of one call of each function in each round: the median over the calls of its turn.

  Progress and the time that is left go to standard error.

  Args:
    functions: what to time, by any key.
    rounds: how often each has its turn.
    seconds: length of a turn. It may be longer, because every turn has at least one untimed and one timed call.
    clock: one of `CLOCKS`.
  """
  line, began = ProgressLine(sys.stderr, terminal_seconds=0.5), time.monotonic()
  times: dict[Hashable, list[float]] = {key: [] for key in functions}
  for index in range(rounds * len(functions)):
    key = list(functions)[index % len(functions)]
    _calls(functions[key], seconds * _UNTIMED, CLOCKS[clock])
    times[key].append(1000 * statistics.median(_calls(functions[key], seconds * (1 - _UNTIMED), CLOCKS[clock])))
    done, total = index + 1, rounds * len(functions)
    left = (time.monotonic() - began) / done * (total - done)
    line.show(f"  round {index // len(functions) + 1} of {rounds}; {left / 60:.1f} minutes left")
  line.clear()
  return times


def _calls(function: Callable[[], None], seconds: float, clock: Callable[[], float]) -> list[float]:
  """Seconds of each call; calls the function for that time, or once if one call takes longer."""
  times, end = [], time.perf_counter() + seconds
  while not times or time.perf_counter() < end:
    began = clock()
    function()
    times.append(clock() - began)
  return times
