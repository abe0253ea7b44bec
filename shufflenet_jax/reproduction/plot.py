"""The report's two plots, as PNG files."""

import collections
import io
import statistics
from collections.abc import Callable, Sequence

from shufflenet_jax.reproduction.cells import Cell, titled
from shufflenet_jax.reproduction.results import Result

_Y_LABEL = "top-1 error, %: mean, standard deviation over seeds"


def errors(results: Sequence[Result]) -> bytes:
  """Error against multiply-adds, a line for each kind of network. A network with one seed has no error bar.

  Points of networks without shuffle are hollow and a little to the left: they have the multiply-adds of those with it.
  """
  families = collections.defaultdict(lambda: collections.defaultdict(list))
  for result in results:
    families[_family(result.cell)][result.multiply_adds / 1e6].append(result.error)

  def draw(axes):
    for family in sorted(families):
      without = family.endswith(", no shuffle")
      points = sorted(families[family].items())
      places = [x * (0.985 if without else 1) for x, _ in points]
      fill = "white" if without else None
      _error_bars(axes, places, [values for _, values in points], family, ":" if without else "-", fill)
    axes.set_xscale("log")
    for axis_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
      axis_formatter("{x:g}")
    axes.set_xlabel("million multiply-adds for one picture")
    axes.legend(fontsize="small")

  return _png(draw)


def shuffle(pairs: Sequence[tuple[Cell, Cell]], errors_of: dict[str, list[float]]) -> bytes:
  """For each network, the error without shuffle beside that with it.

  Args:
    pairs: (without, with shuffle).
    errors_of: cell's name -> errors of its seeds, percent.
  """

  def draw(axes):
    for which, label in enumerate(("without shuffle", "with shuffle")):
      places = [i + 0.2 * which for i in range(len(pairs))]
      _error_bars(axes, places, [errors_of[pair[which].name] for pair in pairs], label, "none")
    axes.set_xticks([i + 0.1 for i in range(len(pairs))], [pair[1].label.replace(" g=", "\ng=") for pair in pairs])
    axes.margins(x=0.2)
    axes.legend()

  return _png(draw)


def _family(cell_name: str) -> str:
  """The kind of network that a cell belongs to: `ShuffleNet g=3`, `ResNet`."""
  if cell_name.startswith("shufflenet"):
    _, _, groups, *rest = cell_name.split("_")
    return f"ShuffleNet g={groups[1:]}" + (", no shuffle" if rest else "")
  return titled(cell_name.rpartition("_")[0])


def _error_bars(
  axes, x: list[float], values: list[list[float]], label: str, line: str, fill: str | None = None
) -> None:
  means = [statistics.fmean(v) for v in values]
  bars = [statistics.stdev(v) if len(v) > 1 else float("nan") for v in values]
  axes.errorbar(x, means, bars, marker="o", capsize=3, label=label, linestyle=line, markerfacecolor=fill)


def _png(draw: Callable) -> bytes:
  from matplotlib.figure import Figure  # no pyplot: no global state, no display

  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.subplots()
  axes.grid(alpha=0.3)
  axes.set_ylabel(_Y_LABEL)
  draw(axes)
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=110)
  return png.getvalue()
