"""The report: Markdown tables of our errors beside the paper's, which of its claims hold here, and two plots."""

import collections
import functools
import operator
from collections.abc import Collection, Sequence

import tabulate

from shufflenet_jax import storage
from shufflenet_jax.paper import top1_errors
from shufflenet_jax.paper.complexity_tables import TOLERANCE_PERCENT
from shufflenet_jax.reproduction import cells, plot
from shufflenet_jax.reproduction.cells import Cell, Claim
from shufflenet_jax.reproduction.results import Result
from shufflenet_jax.reproduction.statistics import CONFIDENCE, Difference, difference, mean_and_deviation

_TITLES = {
  2: "number of groups",
  3: "channel shuffle",
  4: "other units at about the same complexity",
  5: "MobileNet",
}


def write(tables: Collection[int], wanted: Sequence[Cell], done: Sequence[Result], results_file: str) -> list[str]:
  """Writes `NAME.md` beside `NAME.jsonl`, and where there is something to compare, two plots.

  `NAME_errors.png` needs networks of different multiply-adds, `NAME_shuffle.png` one with and without shuffle.

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
  pairs = [(c.worse, c.better) for c in cells.claims([3]) if errors.get(c.worse.name) and errors.get(c.better.name)]
  pairs = [pair for pair in pairs if set(pair) <= set(wanted)]
  plots = {}
  if len({result.multiply_adds for result in own}) > 1:
    plots[f"{stem}_errors.png"] = plot.errors(own)
  if pairs:
    plots[f"{stem}_shuffle.png"] = plot.shuffle(pairs, errors)
  text = markdown(tables, wanted, errors, own, [storage.name(path) for path in plots])
  storage.write_text(f"{stem}.md", text)
  for path, png in plots.items():
    storage.write_bytes(path, png)
  return [f"{stem}.md", *plots]


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
      blocks.append("\n".join(f"- {_sentence(claim, errors, own)}" for claim in claims))
  return "\n\n".join(blocks) + "\n"


def _table(rows: list[list[str]], headers: list[str]) -> str:
  return tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _heading(own: Sequence[Result]) -> str:
  lines = ["# The paper's tables, trained here", ""]
  if not own:
    return "\n".join([*lines, "There are no results yet."])
  lines += [
    f"{len(own)} run{'s' * (len(own) > 1)} on {_values(own, 'data', 'name')} at {_values(own, 'data', 'image_size')}"
    " pixels a side:"
    f" {_values(own, 'num_train_steps')} steps of {_values(own, 'batch_size')} images, learning rate"
    f" {_values(own, 'optimizer', 'learning_rate')} falling linearly to 0.",
    "The paper's errors are on ImageNet, so only the differences between networks can be compared, not the errors.",
    f"± after an error is the standard deviation over seeds; ± after a difference is half its {100 * CONFIDENCE:.0f} %"
    " confidence interval (Welch). A claim is open where the interval includes 0, or where a network has one seed."
    f" About one in {1 / (1 - CONFIDENCE):.0f} of such intervals misses the true difference by chance.",
    "",
    "Computed on:",
  ]
  for (hardware, commit), count in sorted(collections.Counter((r.hardware, r.commit) for r in own).items()):
    lines.append(f"- {hardware or 'unknown'}, commit {commit or 'unknown'}: {count} run{'s' * (count > 1)}")
  return "\n".join(lines)


def _values(own: Sequence[Result], *path: str) -> str:
  """The different values of a field of the runs' configs: `0.2`, or `0.01 or 0.2`."""
  values = {functools.reduce(operator.getitem, path, result.config) for result in own}
  return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in sorted(values))


def _ours(values: Sequence[float]) -> tuple[str, str]:
  return (mean_and_deviation(values), str(len(values))) if values else ("missing", "0")


def _where(cell: Cell, own: Sequence[Result]) -> list[str]:
  count = _multiply_adds(cell, own)
  return [f"{count / 1e6:.2f}" if count else ""]


def _multiply_adds(cell: Cell, own: Sequence[Result]) -> int | None:
  """Of a cell's network; None if the cell has no result."""
  return next((result.multiply_adds for result in own if result.cell == cell.name), None)


def _sentence(claim: Claim, errors: dict[str, list[float]], own: Sequence[Result]) -> str:
  """`0.25x g=3: without shuffle is worse by 3.10 ± 0.60 points (3 and 3 seeds); the paper has 1.3. The claim holds.`"""
  paper = f"the paper has {claim.paper_points:.1f}"
  if not (errors.get(claim.worse.name) and errors.get(claim.better.name)):
    return f"{claim.what}: missing; {paper}."
  found = _difference(claim.worse, claim.better, errors)
  verdict = {
    "holds": "The claim holds.", "does not hold": "The claim does not hold here.", "open": "The claim is open.",
  }[found.verdict]  # fmt: skip
  remark = _budget(claim.worse, claim.better, own)
  sentence = f"{claim.what} is {_in_words(found, remark)}; {paper}. {verdict}"
  if claim.table == 4 and (nearest := _nearest(claim, own)) != claim.better:
    found, remark = _difference(claim.worse, nearest, errors), _budget(claim.worse, nearest, own)
    sentence += f" Against {nearest.label} it is {_in_words(found, remark)}."
  return sentence


def _difference(worse: Cell, better: Cell, errors: dict[str, list[float]]) -> Difference:
  return difference(errors[worse.name], errors[better.name])


def _in_words(found: Difference, remark: str = "") -> str:
  """`worse by 3.10 ± 0.60 points (3 and 3 seeds)`, with a remark in the parentheses."""
  margin = "" if found.margin is None else f" ± {found.margin:.2f}"
  direction = "equal," if abs(found.mean) < 0.005 else "worse by" if found.mean > 0 else "better by"
  return f"{direction} {abs(found.mean):.2f}{margin} points ({found.counts[0]} and {found.counts[1]} seeds{remark})"


def _budget(worse: Cell, better: Cell, own: Sequence[Result]) -> str:
  """A remark, if the better network has many more or fewer multiply-adds than the other, else ""."""
  percent = 100 * (_multiply_adds(better, own) / _multiply_adds(worse, own) - 1)
  if abs(percent) <= TOLERANCE_PERCENT:
    return ""
  return f"; {better.label} has {abs(percent):.0f} % {'more' if percent > 0 else 'fewer'} multiply-adds"


def _nearest(claim: Claim, own: Sequence[Result]) -> Cell:
  """The ShuffleNet of the better network's scale whose multiply-adds are nearest to the worse network's.

  It has more than one group: with one, it is Table 4's Xception-like unit. On the small pictures of a run here, the
  layers have other shares in a network's multiply-adds than in the paper, so its equal networks need not be equal here.
  """
  wanted, scale = _multiply_adds(claim.worse, own), claim.better.scale
  others = [cells.shufflenet(scale, groups) for groups in top1_errors.TABLE_2[scale] if groups > 1]
  others = [cell for cell in others if _multiply_adds(cell, own)]
  return min(others, key=lambda cell: abs(_multiply_adds(cell, own) - wanted))
