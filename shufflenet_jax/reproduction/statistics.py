"""Means over seeds, and differences of means with confidence intervals."""

import dataclasses
import statistics
import warnings
from collections.abc import Sequence

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
  """How much larger the mean of one group of values is than that of another.

  Attributes:
    mean: the difference.
    margin: half the width of its 95 % confidence interval; None if it cannot be estimated, because a group has a single
      value, or neither group varies.
    counts: of values in the two groups.
  """

  mean: float
  margin: float | None
  counts: tuple[int, int]

  @property
  def verdict(self) -> str:
    """Whether the difference is above 0: `holds`, `does not hold` (it is below), or `open` (the interval has 0)."""
    if self.margin is None or abs(self.mean) <= self.margin:
      return "open"
    return "holds" if self.mean > 0 else "does not hold"


def difference(larger: Sequence[float], smaller: Sequence[float]) -> Difference:
  """The difference of two means, with Welch's interval, which allows the groups to have different variances.

  Args:
    larger, smaller: at least one value each. `larger` is the group whose mean is expected to be larger.
  """
  mean = statistics.fmean(larger) - statistics.fmean(smaller)
  counts = (len(larger), len(smaller))
  if min(counts) < 2 or len(set(larger)) == len(set(smaller)) == 1:
    return Difference(mean, None, counts)
  from scipy import stats  # takes a second

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that a group's values are all the same, which Welch's interval allows
    interval = stats.ttest_ind(larger, smaller, equal_var=False).confidence_interval(CONFIDENCE)
  return Difference(mean, float(interval.high - interval.low) / 2, counts)


def mean_and_deviation(values: Sequence[float]) -> str:
  """`55.02 ± 0.31`: mean and standard deviation, or a single value alone."""
  mean = f"{statistics.fmean(values):.2f}"
  return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
