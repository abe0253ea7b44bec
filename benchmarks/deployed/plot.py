"""The speedups as a plot: a group of bars for each network, beside the paper's and the theoretical speedup."""

from collections.abc import Sequence

from benchmarks.deployed import table8
from benchmarks.deployed.report import Measured

_WIDTH = 0.8  # of a group of bars; 1 is the distance between two groups


def save(sizes: Sequence[Measured], path: str) -> None:
  """Writes a PNG file with one panel for each size."""
  from matplotlib.figure import Figure  # no pyplot: no global state, no display

  figure = Figure(figsize=(8, 4.2 * len(sizes)), layout="constrained")
  for measured, axes in zip(sizes, figure.subplots(len(sizes), squeeze=False)[:, 0]):
    _draw(axes, measured)
  figure.savefig(path, format="png", dpi=110)


def _draw(axes, measured: Measured) -> None:
  networks = [name for name in measured.paper if name in measured.multiply_adds and name != table8.BASELINE]
  speedups = measured.speedups
  for i, (runtime, values) in enumerate(speedups.items()):
    width = _WIDTH / len(speedups)
    shown = [(place, values[name]) for place, name in enumerate(networks) if name in values]
    places = [place + (i + 0.5) * width - _WIDTH / 2 for place, _ in shown]
    axes.bar(places, [value for _, value in shown], width, label=measured.titles[runtime])
  ends = ((place - _WIDTH / 2, place + _WIDTH / 2) for place in range(len(networks)))
  left, right = zip(*ends) if networks else ((), ())
  for label, values, style in (("the paper", measured.paper, "-"), ("multiply-adds", measured.theoretical, "--")):
    if heights := [values[name] for name in networks if name in values]:
      axes.hlines(heights, left, right, colors="black", linestyles=style, label=label)
  axes.set_xticks(range(len(networks)), [table8.NETWORKS[name].title for name in networks])
  axes.set_ylabel(f"AlexNet's time over the network's, {measured.size}")
  axes.grid(axis="y", alpha=0.3)
  axes.set_axisbelow(True)
  axes.legend(fontsize="small")
