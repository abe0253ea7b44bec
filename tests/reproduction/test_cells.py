"""The networks and claims of the paper's tables."""

import pytest

from shufflenet_jax import tasks
from shufflenet_jax.config import config_file
from shufflenet_jax.errors import UserError
from shufflenet_jax.reproduction import cells

ALL = (2, 3, 4, 5)


def test_tables_have_the_papers_errors():
  """A row of each table, as printed in the paper."""
  printed = {(row.table, row.cell.name): row.paper_error for row in cells.rows(ALL)}
  assert printed[2, "shufflenet_0.25x_g2"] == 56.8
  assert printed[3, "shufflenet_0.5x_g8_noshuffle"] == 48.1
  assert printed[4, "resnext_13M"] == 65.2
  assert printed[5, "mobilenet_0.5x"] == 36.3
  assert [sum(table == t for t, _ in printed) for table in ALL] == [15, 12, 13, 8]


def test_claims_are_differences_of_the_papers_errors():
  points = {(claim.table, claim.what): claim.paper_points for claim in cells.claims(ALL)}
  assert points[3, "0.25x g=8: without shuffle"] == pytest.approx(56.5 - 52.7)
  assert points[2, "0.25x: g=1 against g=8"] == pytest.approx(57.1 - 52.7)
  assert points[4, "13M: ResNet against ShuffleNet"] == pytest.approx(63.7 - 52.7)


def test_each_network_is_trained_once_whatever_tables_it_is_in():
  chosen = cells.choose((2, 3, 4), [0.25], [])
  names = [cell.name for cell in chosen]
  assert sorted(names) == sorted({
    "shufflenet_0.25x_g1", "shufflenet_0.25x_g2", "shufflenet_0.25x_g3", "shufflenet_0.25x_g4", "shufflenet_0.25x_g8",
    "shufflenet_0.25x_g3_noshuffle", "shufflenet_0.25x_g8_noshuffle", "resnet_13M", "resnext_13M",
  })  # fmt: skip


def test_every_cell_has_the_papers_budget():
  """Other units are solved for it. A ShuffleNet is counted at 224 pixels; at 0.25x g=8 rounded widths make it 15.3M."""
  budgets = {0.25: 13, 0.5: 38, 1.0: 140}
  for cell in cells.choose((2, 3, 4), [], []):
    config = config_file.load(f"configs/imagenet.py:{cell.arguments}")
    assert (config.model.get("shuffle") == "none") == cell.name.endswith("noshuffle")
    if cell.scale == 0.25 and config.model.network == "shufflenet_v1":
      counted = tasks.network_for_images(config)[1].without_classifier
      assert counted / 1e6 == pytest.approx(13, rel=0.19), cell.name
    elif config.model.network != "shufflenet_v1":
      assert config.model.mflops == budgets[cell.scale]
    else:
      assert (config.model.scale, f"_g{config.model.groups}" in cell.name) == (cell.scale, True)


def test_labels_are_for_people():
  labels = {cell.name: cell.label for cell in cells.choose(ALL, [], [])}
  assert labels["shufflenet_0.25x_g8_noshuffle"] == "ShuffleNet 0.25x g=8, no shuffle"
  assert labels["vgg_like_140M"] == "VGG-like 140M"


@pytest.mark.parametrize(
  ("tables", "scales", "only", "message"),
  [
    ((7,), [], [], "--tables=7 is not a table of errors on ImageNet; those are 2, 3, 4, 5"),
    ((3,), [0.75], [], "--scales=0.75 is not in these tables; they have 0.25, 0.5, 1"),
    ((3,), [], ["g5"], "--only=g5 is in none of the names: shufflenet_1x_g3_noshuffle"),
    ((2, 4), [0.5], ["13M"], "--only=13M leaves no network at --scales=0.5"),
  ],
)
def test_unknown_choices_are_refused(tables, scales, only, message):
  with pytest.raises(UserError, match=message):
    cells.choose(tables, scales, only)
