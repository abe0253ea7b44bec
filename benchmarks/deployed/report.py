"""The report: milliseconds, speedups over AlexNet beside the paper's and the theoretical ones, and what they show."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import tabulate

from benchmarks.deployed import table8

# The runtimes in which the paper's speedups are to be reached, and the networks.
CLAIMED_IN, CLAIMED_FOR = ("litert", "onnxruntime"), ("0.5x", "1x")
# The same runtime with our file, and with those of a generic exporter.
OURS, GENERIC = "onnxruntime", ("generic", "generic-scaled")


@dataclasses.dataclass(frozen=True)
class Measured:
  """What was measured at one size.

  Attributes:
    size: one of `table8.SIZES`.
    multiply_adds: network -> multiply-adds for one picture.
    rounds_ms: runtime -> network -> milliseconds of one inference in each round.
    titles: runtime -> its name in reports.
    failures: why a network is missing in a runtime, in words.
  """

  size: str
  multiply_adds: Mapping[str, int]
  rounds_ms: Mapping[str, Mapping[str, Sequence[float]]]
  titles: Mapping[str, str]
  failures: Sequence[str] = ()

  @property
  def ms(self) -> dict[str, dict[str, float]]:
    """Runtime -> network -> median over the rounds."""
    return {
      runtime: {network: statistics.median(ms) for network, ms in by_network.items()}
      for runtime, by_network in self.rounds_ms.items()
    }

  @property
  def speedups(self) -> dict[str, dict[str, float]]:
    """Runtime -> network -> AlexNet's time over the network's, for the runtimes that have run AlexNet."""
    by_runtime = {runtime: over_baseline(ms) for runtime, ms in self.ms.items()}
    return {runtime: speedups for runtime, speedups in by_runtime.items() if speedups}

  @property
  def paper(self) -> dict[str, float]:
    """The paper's speedups."""
    rows = table8.NETWORKS.items()
    return over_baseline({name: row.paper_ms[self.size] for name, row in rows if row.paper_ms})

  @property
  def theoretical(self) -> dict[str, float]:
    """The speedups that follow from the multiply-adds."""
    return over_baseline(self.multiply_adds)

  @property
  def of_generic(self) -> dict[str, dict[str, float]]:
    """Generic export -> network -> our file's time as a fraction of the export's, in the same runtime."""
    ours = self.ms.get(OURS, {})
    return {
      generic: {network: ours[network] / ms for network, ms in self.ms[generic].items() if network in ours}
      for generic in GENERIC
      if generic in self.ms
    }

  def as_json(self) -> dict:
    """All figures as plain JSON values."""
    return {
      "multiply_adds": dict(self.multiply_adds),
      "rounds_ms": self.rounds_ms,
      "ms": self.ms,
      "speedups": {"multiply_adds": self.theoretical, "paper": self.paper, **self.speedups},
      "of_generic": self.of_generic,
      "failures": list(self.failures),
    }


def over_baseline(costs: Mapping[str, float]) -> dict[str, float]:
  """Network -> the baseline's cost divided by the network's; empty if the baseline's cost is unknown."""
  if table8.BASELINE not in costs:
    return {}
  return {network: costs[table8.BASELINE] / cost for network, cost in costs.items()}


def as_text(measured: Measured) -> str:
  """The report of one size as Markdown."""
  networks = list(measured.multiply_adds)
  paper_ms = {name: table8.NETWORKS[name].paper_ms.get(measured.size) for name in networks}
  mega = {name: count / 1e6 for name, count in measured.multiply_adds.items()}
  ms = {measured.titles[runtime]: values for runtime, values in measured.ms.items() if runtime not in GENERIC}
  speedups = {measured.titles[runtime]: values for runtime, values in measured.speedups.items()}
  blocks = [
    f"## {measured.size}",
    "Milliseconds of one inference, one thread:",
    _table(networks, {"M multiply-adds": mega, "paper": paper_ms, **ms}),
  ]
  if speedups:
    blocks += [
      "AlexNet's time over the network's:",
      _table(networks, {"by multiply-adds": measured.theoretical, "paper": measured.paper, **speedups}),
    ]
  sentences = [*_claims(measured), *measured.failures]
  return "\n\n".join([*blocks, "\n".join(f"- {sentence}" for sentence in sentences)]).rstrip() + "\n"


def _table(networks: Sequence[str], columns: Mapping[str, Mapping[str, float | None]]) -> str:
  rows = [
    [table8.NETWORKS[name].title, *(_figure(values.get(name)) for values in columns.values())] for name in networks
  ]
  right = ("left", *["right"] * len(columns))
  return tabulate.tabulate(rows, ("network", *columns), "github", disable_numparse=True, colalign=right)


def _figure(value: float | None) -> str:
  """Three digits, or all those before the point: 3.04, 30.4, 1156."""
  if value is None:
    return "-"
  return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _claims(measured: Measured) -> list[str]:
  """What the figures show, in sentences."""
  sentences = []
  for runtime in CLAIMED_IN:
    for network in CLAIMED_FOR:
      if (speedup := measured.speedups.get(runtime, {}).get(network)) is not None:
        paper = measured.paper[network]
        sentences.append(
          f"{measured.titles[runtime]}: {table8.NETWORKS[network].title} is {_figure(speedup)} times as fast as"
          f" AlexNet; the paper has {_figure(paper)}: {'reached' if speedup >= paper else 'not reached'}."
        )
  for generic, fractions in measured.of_generic.items():
    sentences += [
      f"{measured.titles[OURS]}: our {table8.NETWORKS[network].title} takes {fraction:.2f} of the time of"
      f" {measured.titles[generic]} ({_figure(measured.ms[generic][network])} ms)."
      for network, fraction in fractions.items()
    ]
  return sentences
