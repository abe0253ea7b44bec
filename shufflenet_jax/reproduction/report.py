"""The report: Markdown tables of our errors beside the paper's, what becomes of its claims, and two plots."""

import collections
import io
import statistics
from collections.abc import Collection, Sequence

import tabulate

from shufflenet_jax import storage
from shufflenet_jax.reproduction import cells
from shufflenet_jax.reproduction.cells import Cell, Claim
from shufflenet_jax.reproduction.results import Result
from shufflenet_jax.reproduction.statistics import CONFIDENCE, Difference, difference, mean_and_deviation

_TITLES = {
  2: "number of groups",
  3: "channel shuffle",
  4: "other units at equal complexity",
  5: "MobileNet",
}


def write(tables: Collection[int], wanted: Sequence[Cell], done: Sequence[Result], results_file: str) -> list[str]:
  """Writes `NAME.md`, `NAME_errors.png` and `NAME_shuffle.png` beside `NAME.jsonl`.

  Args:
    tables: of the paper.
    wanted: the cells to report on.
    done: all results; those of other cells are left out.
    results_file: NAME.jsonl.

  Returns:
    The paths that were written.
  """
  stem = results_file.removesuffix(".jsonl")
  errors = collections.defaultdict(list)
  for result in sorted(done, key=lambda result: result.seed):
    errors[result.cell].append(result.error)
  own = [result for result in done if result.cell in {cell.name for cell in wanted}]
  name = storage.name(stem)
  text = markdown(tables, wanted, errors, own, [f"{name}_errors.png", f"{name}_shuffle.png"])
  storage.write_text(f"{stem}.md", text)
  storage.write_bytes(f"{stem}_errors.png", error_plot(own))
  storage.write_bytes(f"{stem}_shuffle.png", shuffle_plot(wanted, errors))
  return [f"{stem}.md", f"{stem}_errors.png", f"{stem}_shuffle.png"]


def markdown(
  tables: Collection[int], wanted: Sequence[Cell], errors: dict[str, list[float]], own: Sequence[Result], plots
) -> str:
  """The report's text; `errors` are top-1 errors of each cell, percent."""
  blocks = [_heading(own), *(f"![{plot}]({plot})" for plot in plots)]
  chosen = set(wanted)
  for table in sorted(tables):
    rows = [row for row in cells.rows([table]) if row.cell in chosen]
    claims = [claim for claim in cells.claims([table]) if {claim.worse, claim.better} <= chosen]
    if not rows:
      continue
    body = [
      [row.cell.label, f"{row.paper_error:.1f}", *_ours(errors.get(row.cell.name, [])), *_where(row.cell, own)]
      for row in rows
    ]
    headers = ["network", "paper, ImageNet", "ours", "seeds", "M multiply-adds"]
    blocks += [f"## Table {table}: {_TITLES[table]}", "Top-1 error, percent.", _table(body, headers)]
    if claims:
      blocks.append("\n".join(f"- {_sentence(claim, errors)}" for claim in claims))
  return "\n\n".join(blocks) + "\n"


def _table(rows: list[list[str]], headers: list[str]) -> str:
  return tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _heading(own: Sequence[Result]) -> str:
  lines = ["# The paper's tables, trained here", ""]
  if not own:
    return "\n".join([*lines, "There are no results yet."])
  config = own[0].config
  data, images = config["data"], sorted({f"{r.images:,}" for r in own})
  lines += [
    f"{len(own)} runs on {data['name']} at {data['image_size']}x{data['image_size']} pixels,"
    f" {' or '.join(images)} images each, batch {config['batch_size']}, learning rate"
    f" {config['optimizer']['learning_rate']} falling linearly to 0.",
    "The paper's errors are on ImageNet, so only the differences between networks can be compared, not the errors.",
    f"± after an error is the standard deviation over seeds; ± after a difference is the {100 * CONFIDENCE:.0f} %"
    " confidence interval (Welch). A claim is open where the interval includes 0, or where a network has one seed.",
    "",
    "Computed on:",
  ]
  for (hardware, commit), runs in sorted(collections.Counter((r.hardware, r.commit) for r in own).items()):
    lines.append(f"- {hardware}, commit {commit or 'unknown'}: {runs} runs")
  return "\n".join(lines)


def _ours(values: Sequence[float]) -> tuple[str, str]:
  return (mean_and_deviation(values), str(len(values))) if values else ("missing", "0")


def _where(cell: Cell, own: Sequence[Result]) -> list[str]:
  counts = {result.multiply_adds for result in own if result.cell == cell.name}
  return [f"{counts.pop() / 1e6:.2f}" if counts else ""]


def _sentence(claim: Claim, errors: dict[str, list[float]]) -> str:
  """`0.25x g=3: without shuffle is worse by 3.10 ± 0.60 points (3 and 3 seeds); the paper has 1.3. The claim holds.`"""
  worse, better = (errors.get(cell.name, []) for cell in (claim.worse, claim.better))
  paper = f"the paper has {claim.paper_points:.1f}"
  if not (worse and better):
    return f"{claim.what}: missing; {paper}."
  found: Difference = difference(worse, better)
  direction = "worse" if found.mean >= 0 else "better"
  margin = "" if found.margin is None else f" ± {found.margin:.2f}"
  seeds = f"{found.counts[0]} and {found.counts[1]} seeds"
  verdict = {
    "holds": "The claim holds.", "does not hold": "The claim does not hold here.", "open": "The claim is open.",
  }[found.verdict]  # fmt: skip
  return f"{claim.what} is {direction} by {abs(found.mean):.2f}{margin} points ({seeds}); {paper}. {verdict}"


def _mean_and_error_bar(values: Sequence[float]) -> tuple[float, float]:
  return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _family(cell_name: str) -> str:
  """The line of the plot that a cell belongs to."""
  if cell_name.startswith("shufflenet"):
    _, _, groups, *rest = cell_name.split("_")
    return f"ShuffleNet g={groups[1:]}" + (", no shuffle" if rest else "")
  return cell_name.rpartition("_")[0].replace("mobilenet", "MobileNet")


def error_plot(own: Sequence[Result]) -> bytes:
  """Error against multiply-adds, a line for each kind of network, as PNG."""
  families = collections.defaultdict(lambda: collections.defaultdict(list))
  for result in own:
    families[_family(result.cell)][result.multiply_adds / 1e6].append(result.error)

  def draw(axes):
    for family in sorted(families):
      points = sorted(families[family].items())
      means, bars = zip(*(_mean_and_error_bar(values) for _, values in points))
      axes.errorbar([x for x, _ in points], means, bars, marker="o", capsize=3, label=family)
    axes.set_xscale("log")
    axes.set_xlabel("million multiply-adds for one picture")
    axes.set_ylabel("top-1 error, %: mean and standard deviation")
    if families:
      axes.legend(fontsize="small")

  return _png(draw)


def shuffle_plot(wanted: Sequence[Cell], errors: dict[str, list[float]]) -> bytes:
  """Bars of the error with shuffle beside that without, for each network that has both, as PNG."""
  pairs = [
    (claim.worse, claim.better) for claim in cells.claims([3]) if errors.get(claim.worse.name) and claim.worse in wanted
  ]
  pairs = [pair for pair in pairs if errors.get(pair[1].name)]

  def draw(axes):
    for offset, label in enumerate(("without shuffle", "with shuffle")):
      bars = [_mean_and_error_bar(errors[pair[offset].name]) for pair in pairs]
      places = [i + 0.4 * offset for i in range(len(pairs))]
      axes.bar(places, [mean for mean, _ in bars], 0.38, yerr=[bar for _, bar in bars], capsize=3, label=label)
    axes.set_xticks([i + 0.2 for i in range(len(pairs))], [pair[1].label for pair in pairs])
    axes.set_ylabel("top-1 error, %: mean and standard deviation")
    if pairs:
      means = [statistics.fmean(errors[cell.name]) for pair in pairs for cell in pair]
      axes.set_ylim(min(means) - 3, max(means) + 2)
      axes.legend()

  return _png(draw)


def _png(draw) -> bytes:
  from matplotlib.figure import Figure  # no pyplot: no global state, no display

  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.subplots()
  axes.grid(alpha=0.3)
  draw(axes)
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=110)
  return png.getvalue()
