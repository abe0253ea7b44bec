"""Loads networks in runtimes, checks that these agree, and times them in turns."""

import functools
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.deployed import networks, table8
from benchmarks.deployed.networks import Network
from benchmarks.deployed.report import Measured
from benchmarks.deployed.runtimes import RUNTIMES, Function
from benchmarks.deployed.turns import take_turns

# The largest difference of a logit between two runtimes, as a fraction of the largest logit. Convolutions by Winograd's
# algorithm round to about 1e-4.
TOLERANCE = 1e-3


def measure(size: str, names: Sequence[str], runtimes: Sequence[str], **turns) -> Measured:
  """Times networks in runtimes.

  Args:
    size: one of `table8.SIZES`.
    names: of `table8.NETWORKS`.
    runtimes: of `RUNTIMES`.
    **turns: arguments of `take_turns`.
  """
  images = np.random.default_rng(0).integers(0, 256, (1, *table8.SIZES[size], 3), np.uint8)
  loaded, multiply_adds, failures = {}, {}, []
  for name in names:
    network = networks.make(name, table8.SIZES[size])
    multiply_adds[name] = network.multiply_adds
    functions, reasons = load(network, runtimes, images)
    loaded |= {(runtime, name): function for runtime, function in functions.items()}
    failures += reasons
  # The networks in one runtime have their turns one after the other, as their times are compared.
  keys = [(runtime, name) for runtime in runtimes for name in names if (runtime, name) in loaded]
  times = take_turns({key: functools.partial(loaded[key], images) for key in keys}, **turns)
  return Measured(
    size=size,
    multiply_adds=multiply_adds,
    rounds_ms={runtime: {name: ms for (r, name), ms in times.items() if r == runtime} for runtime in runtimes},
    titles={runtime: RUNTIMES[runtime].title for runtime in runtimes},
    failures=failures,
  )


def load(network: Network, runtimes: Sequence[str], images: np.ndarray) -> tuple[dict[str, Function], list[str]]:
  """A network in each runtime that can run it, and why others cannot, in sentences.

  A runtime whose logits differ from those of the first one counts as one that cannot.
  """
  functions, reasons, expected = {}, [], None
  for name in runtimes:
    runtime = RUNTIMES[name]
    print(f"  loading {network.name} in {runtime.title}", file=sys.stderr, flush=True)
    try:
      function = runtime.load(network)
      if function is None:
        continue
      logits = function(images)
      if not runtime.generic:
        expected = logits if expected is None else expected
        difference = np.abs(logits - expected).max() / np.abs(expected).max()
        if not difference <= TOLERANCE:
          raise ValueError(f"its logits differ from the first runtime's by {difference:.1e} of the largest")
    except Exception as error:  # each runtime has its own, of many kinds; the others can still be measured
      reason = " ".join(str(error).split())[:200]
      reasons.append(f"{runtime.title} does not run {table8.NETWORKS[network.name].title}: {reason}")
      continue
    functions[name] = function
  return functions, reasons
