"""The grid of anchors, and which of them are in the picture."""

import jax.numpy as jnp
import numpy as np

from shufflenet_jax.tasks.detection import anchors as anchor_ops
from shufflenet_jax.tasks.detection.settings import Settings


def test_the_grid_has_every_size_and_ratio_at_the_centre_of_every_cell():
  settings = Settings(anchor_sizes=(64.0, 128.0))
  grid = anchor_ops.grid(32, 50, settings)
  assert grid.shape == (2 * 4 * 6, 4)
  assert grid.dtype == np.float32
  grid = grid.reshape(2, 4, 6, 4)  # (a, 4) -> (rows, columns, anchors of a position, 4)
  heights, widths = grid[..., 2] - grid[..., 0], grid[..., 3] - grid[..., 1]
  np.testing.assert_allclose(heights[1, 2] * widths[1, 2], [64**2] * 3 + [128**2] * 3, rtol=1e-5)
  np.testing.assert_allclose(heights[1, 2] / widths[1, 2], [0.5, 1, 2] * 2, rtol=1e-5)
  np.testing.assert_allclose((grid[1, 2, :, 0] + grid[1, 2, :, 2]) / 2, 24, rtol=1e-6)
  np.testing.assert_allclose((grid[1, 2, :, 1] + grid[1, 2, :, 3]) / 2, 40, rtol=1e-6)


def test_anchors_in_the_padding_or_over_the_border_are_not_trained():
  anchors = jnp.asarray(
    [[0, 0, 16, 16], [-4, 0, 12, 16], [16, 16, 33, 32], [24, 24, 40, 41], [40, 0, 56, 16]], jnp.float32
  )
  size = jnp.asarray([32.0, 32.0])
  assert anchor_ops.trained(anchors, size, Settings()).tolist() == [True, False, False, False, False]
  assert anchor_ops.trained(anchors, size, Settings(max_anchor_overhang=4.0)).tolist() == [
    True,
    True,
    True,
    False,
    False,
  ]
  assert anchor_ops.centred_inside(anchors, size).tolist() == [True, True, True, False, False]
  everything = Settings(max_anchor_overhang=float("inf"))
  assert anchor_ops.trained(anchors, size, everything).tolist() == [True, True, True, False, False]
