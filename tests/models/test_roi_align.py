"""RoIAlign against TensorFlow inside the map, and against a loop over sampling points everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.models.roi_align import joint, roi_align, separable


def value_at(features, y, x):
  """Bilinear interpolation in (h, w, c), the centre of cell i being at i; torchvision's rules at the border."""
  h, w, _ = features.shape
  if y < -1 or y > h or x < -1 or x > w:
    return np.zeros(features.shape[-1])
  y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
  y0, x0 = int(y), int(x)
  y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
  above = (1 - (x - x0)) * features[y0, x0] + (x - x0) * features[y0, x1]
  below = (1 - (x - x0)) * features[y1, x0] + (x - x0) * features[y1, x1]
  return (1 - (y - y0)) * above + (y - y0) * below


def roi_align_in_loops(features, roi, crop, samples):
  ymin, xmin, ymax, xmax = roi
  out = np.zeros((crop, crop, features.shape[-1]))
  for i in range(crop):
    for j in range(crop):
      for a in range(samples):
        for b in range(samples):
          y = ymin + (i + (a + 0.5) / samples) * (ymax - ymin) / crop - 0.5
          x = xmin + (j + (b + 0.5) / samples) * (xmax - xmin) / crop - 0.5
          out[i, j] += value_at(features, y, x) / samples**2
  return out


@pytest.mark.parametrize("function", [separable, joint])
@pytest.mark.parametrize("crop", [3, 7])
def test_it_is_a_loop_over_the_sampling_points_also_over_the_border(crop, function):
  rng = np.random.default_rng(crop)
  features = rng.normal(size=(2, 9, 13, 4)).astype(np.float32)
  corner = rng.uniform(-6, 10, (2, 12, 2))
  rois = np.concatenate([corner, corner + rng.uniform(0, 12, (2, 12, 2))], axis=-1).astype(np.float32)
  rois[:, -1] = [-5, -5, 20, 25]  # beyond every border
  ours = function(jnp.asarray(features), jnp.asarray(rois), crop, samples=2)
  for n in range(2):
    for r in range(12):
      expected = roi_align_in_loops(features[n].astype(np.float64), rois[n, r].astype(np.float64), crop, 2)
      np.testing.assert_allclose(ours[n, r], expected, atol=1e-5)


def test_it_is_tensorflows_crop_and_average_pool_inside_the_map():
  import tensorflow as tf

  rng, crop, h, w = np.random.default_rng(0), 7, 16, 20
  features = rng.normal(size=(1, h, w, 5)).astype(np.float32)
  ymin, xmin = rng.uniform(1, 6, 30), rng.uniform(1, 8, 30)
  rois = np.stack([ymin, xmin, ymin + rng.uniform(2, 9, 30), xmin + rng.uniform(2, 11, 30)], -1).astype(np.float32)
  # Its boxes are those of the first and the last sampling point, from 0 to 1 between the centres of the outer cells.
  points = 2 * crop
  step = (rois[:, 2:] - rois[:, :2]) / points
  first, last = rois[:, :2] + step / 2 - 0.5, rois[:, 2:] - step / 2 - 0.5
  normalised = np.concatenate([first, last], -1) / np.array([h - 1, w - 1, h - 1, w - 1], np.float32)
  sampled = tf.image.crop_and_resize(features, normalised, np.zeros(30, np.int32), (points, points))
  expected = tf.nn.avg_pool2d(sampled, 2, 2, "VALID").numpy()
  np.testing.assert_allclose(roi_align(jnp.asarray(features), jnp.asarray(rois)[None], crop)[0], expected, atol=1e-5)


def test_a_box_on_the_cells_gives_the_cells():
  """Half a pixel off is the usual mistake: each bin is one cell, and a single point is at its centre."""
  features = jnp.arange(30.0).reshape(1, 5, 6, 1)  # (30,) -> (n, h, w, c)
  crop = roi_align(features, jnp.asarray([[[1.0, 2.0, 4.0, 5.0]]]), crop=3, samples=1)
  np.testing.assert_array_equal(crop[0, 0], features[0, 1:4, 2:5])


def test_boxes_without_an_area_are_finite_and_get_no_gradient():
  features = jnp.ones((1, 4, 4, 2))
  rois = jnp.asarray([[[2, 2, 2, 2], [3, 3, 1, 1], [1e9, 1e9, 2e9, 2e9]]], jnp.float32)
  value, gradients = jax.value_and_grad(lambda *x: roi_align(*x, 3).sum(), argnums=(0, 1))(features, rois)
  assert float(value) == 2 * 3 * 3 * 2
  assert bool(jnp.isfinite(gradients[0]).all())
  np.testing.assert_array_equal(gradients[1], 0)


def test_it_computes_in_the_dtype_of_the_map():
  crops = roi_align(jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.asarray([[[0.0, 0.0, 4.0, 4.0]]]), 2)
  assert crops.dtype == jnp.bfloat16
  np.testing.assert_allclose(crops.astype(jnp.float32), 1, rtol=1e-2)


def test_one_product_is_two_also_in_its_gradient():
  features = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
  rois = jnp.asarray([[[0.5, 1.0, 4.0, 6.5], [-1.0, 2.0, 3.0, 3.0]]] * 2)
  weights = jax.random.normal(jax.random.key(1), (2, 2, 4, 4, 3))

  def gradient(function):
    return jax.grad(lambda x: (weights * function(x, rois, 4, 2)).sum())(features)

  np.testing.assert_allclose(gradient(joint), gradient(separable), atol=1e-5)
