"""Image in, image out: crops, colours, decoding at a fraction."""

import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data import augment


def test_evaluation_crop_is_the_centre_and_keeps_colours_in_order():
  image = np.zeros((40, 64, 3), np.uint8)
  image[..., 0] = np.arange(64) * 4  # red grows to the right
  image[..., 2] = (np.arange(40) * 6)[:, None]  # blue grows downwards
  crop = augment.center_crop(augment.decode(tf.io.encode_png(image)), 32, 40, antialias=False).numpy()
  np.testing.assert_array_equal(crop, image[4:36, 16:48])


def test_training_crops_vary_in_area_within_bounds():
  """On a picture whose pixels hold their own place, a crop shows where it was taken."""
  place = np.stack(np.meshgrid(np.arange(200), np.arange(200)), -1).astype(np.uint8)
  image = tf.constant(np.concatenate([place, place[..., :1]], -1))
  crops = [augment.random_crop(image, 50, 0.25, 4 / 3, tf.constant([seed, 1])).numpy() for seed in range(120)]
  areas = [c.shape[0] * c.shape[1] / 200**2 for c in crops]
  assert 0.2 < min(areas) < 0.3
  assert 0.9 < max(areas) <= 1
  assert all(2 / 3 < c.shape[0] / c.shape[1] < 3 / 2 for c in crops)
  corners = np.array([c[0, 0, :2] for c in crops])
  assert (corners.max(0) > 80).all()
  assert (corners.min(0) == 0).all()


def test_a_jpegs_crop_is_the_crop_of_the_decoded_jpeg():
  """Where it starts in the middle of a block too, up to how colours at its edge are interpolated."""
  smooth = np.linspace(0, 200, 300)[:, None, None] + np.linspace(0, 50, 240)[:, None] + np.array([0, 2, 4])
  encoded = tf.io.encode_jpeg(smooth.astype(np.uint8), quality=95)
  for seed in range(20):
    arguments = (121, 0.1, 4 / 3, tf.constant([seed, 5]))
    quick = augment.random_crop_of_jpeg(encoded, *arguments).numpy()
    whole = augment.random_crop(augment.decode(encoded), *arguments).numpy()
    np.testing.assert_allclose(quick.astype(int), whole.astype(int), atol=2)


@pytest.mark.parametrize(("ratio", "size"), [(1, 128), (2, 100), (4, 50), (8, 25)])
def test_large_jpegs_are_decoded_at_a_fraction_of_their_resolution(ratio, size):
  """The largest that leaves `size` pixels a side; the same part of the picture."""
  smooth = np.linspace(0, 200, 240)[:, None, None] + np.linspace(0, 50, 240)[:, None] + np.array([0, 2, 4])
  encoded = tf.io.encode_jpeg(smooth.astype(np.uint8), quality=95)
  crop = augment.random_crop_of_jpeg(encoded, size, 0.9, 1.05, tf.constant([3, 5])).numpy()
  whole = augment.random_crop_of_jpeg(encoded, 1000, 0.9, 1.05, tf.constant([3, 5])).numpy()
  assert size <= min(crop.shape[:2]) < 2 * size
  assert abs(crop.shape[0] * ratio - whole.shape[0]) < ratio
  np.testing.assert_allclose(crop.mean((0, 1)), whole.mean((0, 1)), atol=2)


def test_colour_jitter_stays_within_its_bounds():
  gray = tf.fill((8, 8, 3), tf.constant(100, tf.uint8))
  means = [augment.resize_crop(gray, 8, 0.4, tf.constant([seed, 0])).numpy().mean() for seed in range(100)]
  assert 60 <= min(means) < 70
  assert 130 < max(means) <= 140
  assert augment.resize_crop(gray, 8, 0.0, tf.constant([1, 0])).numpy().mean() == 100
