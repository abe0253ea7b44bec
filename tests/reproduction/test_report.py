"""Statistics and wording of the report."""

import math
import re

import numpy as np
import pytest

from shufflenet_jax.reproduction import cells, report
from shufflenet_jax.reproduction.statistics import difference
from tests.reproduction.made import result

G3 = cells.shufflenet(0.25, 3)
G3_WITHOUT = cells.shufflenet(0.25, 3, shuffle=False)


def test_welchs_interval_covers_the_true_difference_in_95_percent():
  """Groups of 3 and 5 with different variances, drawn 2,000 times; also the formula, for one of them."""
  random = np.random.default_rng(0)
  covered = 0
  for _ in range(2000):
    larger, smaller = random.normal(3, 0.2, 3), random.normal(1, 1.0, 5)
    found = difference(larger, smaller)
    covered += abs(found.mean - 2) <= found.margin
  assert covered / 2000 == pytest.approx(0.95, abs=0.015)
  a, b = larger.var(ddof=1) / 3, smaller.var(ddof=1) / 5
  freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 4)
  from scipy import stats

  assert found.margin == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(a + b))


@pytest.mark.parametrize(
  ("larger", "smaller", "verdict"),
  [
    ([5.0, 5.1, 5.2], [1.0, 1.1, 1.2], "holds"),
    ([1.0, 1.1, 1.2], [5.0, 5.1, 5.2], "does not hold"),
    ([1.0, 2.0, 3.0], [1.1, 1.9, 2.5], "open"),
    ([5.0], [1.0, 1.1], "open"),
    ([5.0, 5.0], [1.0, 1.0], "open"),
    ([5.0, 5.0], [1.0, 1.1], "holds"),
  ],
)
def test_verdicts(larger, smaller, verdict):
  assert difference(larger, smaller).verdict == verdict


def markdown(results, only=("g3",), tables=(3,)):
  errors = {}
  for r in results:
    errors.setdefault(r.cell, []).append(r.error)
  return report.markdown(tables, cells.choose(tables, [0.25], only), errors, results, [])


def test_the_report_says_what_holds_and_what_is_missing():
  results = [result(G3_WITHOUT.name, seed, top1) for seed, top1 in enumerate((0.40, 0.41, 0.42))]
  assert re.search(r"\| ShuffleNet 0.25x g=3 +\| 55.0 +\| missing +\| 0 ", markdown(results))
  assert "0.25x g=3: without shuffle: missing; the paper has 1.3." in markdown(results)
  results += [result(G3.name, seed, top1) for seed, top1 in enumerate((0.44, 0.45, 0.46))]
  text = markdown(results)
  assert re.search(r"\| ShuffleNet 0.25x g=3, no shuffle +\| 56.3 +\| 59.00 ± 1.00 +\| 3 ", text)
  assert (
    "- 0.25x g=3: without shuffle is worse by 4.00 ± 2.27 points (3 and 3 seeds); the paper has 1.3. The claim holds."
    in text
  )
  more = [result(G3.name, seed, 0.45, multiply_adds=1_200_000) for seed in range(2)]
  assert "(3 and 2 seeds; ShuffleNet 0.25x g=3 has 20 % more multiply-adds)" in markdown(results[:3] + more)
  worse = [result(G3.name, seed, top1) for seed, top1 in enumerate((0.30, 0.31))]
  assert "without shuffle is better by 10.50 ±" in markdown(results[:3] + worse)
  assert "The claim does not hold here." in markdown(results[:3] + worse)


def test_another_unit_is_also_compared_with_the_shufflenet_of_as_many_multiply_adds():
  def text(of_g3=1_030_000, of_g2=960_000):
    networks = {cells.other_unit("resnet", 0.25): (0.40, 1_000_000), cells.shufflenet(0.25, 8): (0.45, 1_200_000)}
    networks |= {G3: (0.43, of_g3), cells.shufflenet(0.25, 2): (0.41, of_g2)}
    results = [
      result(cell.name, seed, top1 + 0.01 * seed, multiply_adds=count)
      for cell, (top1, count) in networks.items()
      for seed in range(2)
    ]
    return markdown(results, only=(), tables=(2, 4))

  assert "13M: ResNet against ShuffleNet is worse by 5.00 ± 3.04 points (2 and 2 seeds; ShuffleNet 0.25x g=8" in text()
  nearest = "holds. Against ShuffleNet 0.25x g=3 it is worse by 3.00 ± 3.04 points (2 and 2 seeds"
  assert f"{nearest}).\n" in text(of_g3=1_010_000)
  assert f"{nearest}; ShuffleNet 0.25x g=3 has 3 % more multiply-adds).\n" in text()
  assert "Against" not in text(of_g3=1_300_000, of_g2=700_000)


def test_without_results_there_are_no_plots(tmp_path):
  written = report.write([3], cells.choose([3], [0.25], []), [], str(tmp_path / "tiny.jsonl"))
  assert written == [str(tmp_path / "tiny.md")]
  assert "There are no results yet." in (tmp_path / "tiny.md").read_text()


def test_files_are_written_beside_the_results(tmp_path):
  def names(results):
    written = report.write([3], cells.choose([3], [0.25], []), results, str(tmp_path / "tiny.jsonl"))
    assert [str(tmp_path / path.rpartition("/")[2]) for path in written] == written
    return [path.rpartition("/")[2] for path in written]

  results = [result(cell.name, seed, 0.4 + 0.01 * seed) for cell in (G3, G3_WITHOUT) for seed in range(2)]
  assert names(results) == ["tiny.md", "tiny_shuffle.png"]  # one number of multiply-adds is no axis
  results.append(result(cells.shufflenet(0.25, 8).name, 0, 0.45, multiply_adds=1_200_000))
  assert names(results) == ["tiny.md", "tiny_errors.png", "tiny_shuffle.png"]
  for plot in tmp_path.glob("*.png"):
    with open(plot, "rb") as file:
      assert file.read(8) == b"\x89PNG\r\n\x1a\n"
  assert "![tiny_errors.png](tiny_errors.png)" in (tmp_path / "tiny.md").read_text()
