"""The counts of detectors against the figures of MobileNet's paper (arXiv 1704.04861, Table 13)."""

import pytest

from shufflenet_jax.counting.detector import count_detector
from shufflenet_jax.models.baselines.mobilenet import MobileNetV1
from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.models.shufflenet import ShuffleNetV1


@pytest.mark.parametrize(("size", "paper"), [(300, 25.2e9), (600, 30.5e9)])
def test_mobilenet_has_the_figures_of_its_paper(size, paper):
  counted = count_detector(FasterRCNN(MobileNetV1(), num_classes=90), size)
  assert counted.multiply_adds == pytest.approx(paper, rel=0.01)
  assert counted.parameters == pytest.approx(6.1e6, rel=0.01)
  assert counted.multiply_adds == sum(own for _, own in counted.rows.values())
  assert counted.parameters == sum(own for own, _ in counted.rows.values())


def test_parts_of_a_shufflenet():
  """The head dominates, and a crop of half the side takes about a quarter of it."""
  backbone = ShuffleNetV1(groups=3, scale=0.5, lowering="reference")
  large, small = (count_detector(FasterRCNN(backbone, 80, crop=crop), 300) for crop in (14, 7))
  assert list(large.rows) == ["body", "rpn", "head"]
  assert large.multiply_adds == pytest.approx(2.98e9, rel=0.005)
  assert small.multiply_adds == pytest.approx(1.28e9, rel=0.005)
  assert large.parameters == small.parameters
  # RoIAlign: rows x map x columns, on a map of 19x19 cells and 240 channels.
  assert large.resampling == 300 * 240 * (14 * 19 * 19 + 14 * 14 * 19)
  assert large.overview(300).splitlines()[-1].startswith("total ")
