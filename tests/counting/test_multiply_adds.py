"""Multiply-adds and parameters against the paper's tables, and the counting of single operations."""

import jax
import jax.numpy as jnp
import pytest

from shufflenet_jax.counting.multiply_adds import count_multiply_adds, count_network
from shufflenet_jax.models.shufflenet import ShuffleNetV1, stage_channels, stem_channels

# groups: MFLOPs as printed in Table 1; our multiply-adds in millions without and with the last layer; our parameters.
TABLE_1 = {
  1: (143, 142.50, 143.08, 1_531_936),
  2: (140, 140.04, 140.84, 1_733_848),
  3: (137, 136.50, 137.46, 1_865_728),
  4: (133, 133.25, 134.34, 1_968_344),
  8: (137, 136.83, 138.37, 2_434_768),
}


@pytest.mark.parametrize("groups", TABLE_1)
def test_table_1(groups):
  paper, convs, with_fc, parameters = TABLE_1[groups]
  rows, counted_parameters, multiply_adds, convs_counted = count_network(ShuffleNetV1(groups), 224)
  assert (round(convs_counted / 1e6, 2), round(multiply_adds / 1e6, 2)) == (convs, with_fc)
  assert round(convs_counted / 1e6 + 1e-9) == pytest.approx(paper, abs=0.5)
  assert counted_parameters == parameters
  assert sum(macs for _, macs in rows.values()) == multiply_adds


@pytest.mark.parametrize(("scale", "with_fc"), [(2.0, 524.05), (1.5, 292.44), (0.25, 13.30)])
def test_scales_of_tables_2_and_5(scale, with_fc):
  assert round(count_network(ShuffleNetV1(3, scale), 224)[2] / 1e6, 2) == with_fc


@pytest.mark.parametrize(
  ("groups", "scale", "stem", "parameters"),
  [(1, 0.5, 0, 534_484), (3, 0.5, 0, 718_324), (1, 0.25, 6, 209_746), (3, 0.25, 6, 305_902)],
)
def test_parameters_of_small_networks(groups, scale, stem, parameters):
  assert count_network(ShuffleNetV1(groups, scale, stem=stem), 224)[1] == parameters


@pytest.mark.parametrize("groups", TABLE_1)
@pytest.mark.parametrize("scale", [0.25, 0.3, 0.5, 0.7, 1.0, 1.1, 1.5, 2.0])
def test_rounding_rule(groups, scale):
  for stage, channels in enumerate(stage_channels(groups, scale)):
    exact = scale * stage_channels(groups, 1.0)[stage]
    assert channels % (4 * groups) == 0
    assert exact - 1e-6 <= channels < exact + 4 * groups - 1e-6
  assert stem_channels(groups, scale) % groups == 0


def test_authors_release_widths():
  assert [stage_channels(8, s) for s in (0.5, 1.5)] == [(192, 384, 768), (576, 1152, 2304)]
  assert [stem_channels(g, s) for g, s in [(3, 0.5), (8, 0.5), (8, 1.0), (8, 1.5), (3, 2.0)]] == [12, 16, 24, 24, 48]


def test_squeeze_excite_of_table_5():
  assert count_network(ShuffleNetV1(3, 2.0, se=True), 224)[2] / 1e6 == pytest.approx(526.92, abs=0.01)


def test_shallow_of_table_5_needs_a_width_near_0_7():
  """The paper gives neither its width nor its stem; its 40M lies between the counts of these two widths."""
  narrow, wide = (count_network(ShuffleNetV1(3, s, repeats=(2, 4, 2)), 224)[2] / 1e6 for s in (0.7, 0.75))
  assert (round(narrow, 1), round(wide, 1)) == (37.0, 41.6)


def test_counting_follows_loops_and_nested_functions():
  weights = jnp.ones((8, 8))

  def scanned(x):
    return jax.lax.scan(lambda c, _: (jax.jit(jnp.dot)(c, weights), None), x, length=5)[0]

  assert sum(count_multiply_adds(scanned, jnp.ones((3, 8))).values()) == 5 * 3 * 8 * 8
  grouped = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
    x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
  )
  counts = count_multiply_adds(grouped, jnp.ones((2, 5, 6, 8)), jnp.ones((3, 3, 2, 12)))
  assert sum(counts.values()) == 2 * 5 * 6 * 12 * 9 * 2


@pytest.mark.parametrize(("padding", "products"), [("VALID", (5 * 3) * (6 * 3)), ("SAME", (5 * 3 - 1) * (6 * 3 - 1))])
def test_a_transposed_convolution_counts_no_products_with_inserted_zeros(padding, products):
  """A kernel of 3 spreads each of 5x6 values over 3x3 positions; "SAME" cuts off one position along each axis."""
  function = lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), padding)  # noqa: E731
  counts = count_multiply_adds(function, jnp.ones((2, 5, 6, 8)), jnp.ones((3, 3, 8, 12)))
  assert sum(counts.values()) == 2 * 8 * 12 * products
