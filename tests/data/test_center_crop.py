"""The crop in NumPy, for deployed files, is TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data.center_crop import center_crop
from shufflenet_jax.data.stream import augment

LARGER, SMALLER, ODD = (375, 500), (20, 31), (257, 255)
LONG = [(61, 900), (2, 201), (3, 200), (1000, 50), (1, 1), (2, 20_000), (30_001, 3)]


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("size", "resize"), [(32, 40), (33, 40), (64, 64)])
@pytest.mark.parametrize("sides", [LARGER, LARGER[::-1], SMALLER, ODD, (40, 64), (64, 64), *LONG])
def test_hardly_a_pixel_differs_from_tensorflows_and_by_one_level(sides, size, resize, antialias):
  image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
  expected = augment.center_crop(tf.constant(image), size, resize, antialias).numpy()
  crop = center_crop(image, height=size, width=size, resize=resize, antialias=antialias)
  assert (crop.dtype, crop.shape) == (np.uint8, (size, size, 3))
  difference = np.abs(crop.astype(int) - expected.astype(int))
  assert difference.max() <= 1
  assert (difference > 0).mean() < 0.005


@pytest.mark.parametrize("antialias", [False, True])
def test_a_crop_may_have_two_different_sides(antialias):
  image = np.random.default_rng(0).integers(0, 256, (*LARGER, 3), np.uint8)
  square = center_crop(image, height=32, width=32, resize=40, antialias=antialias)
  part = center_crop(image, height=20, width=32, resize=40, antialias=antialias)
  np.testing.assert_array_equal(part, square[6:26])


def test_pixels_are_copied_where_nothing_is_resized():
  image = np.random.default_rng(0).integers(0, 256, (40, 51, 3), np.uint8)
  crop = center_crop(image, height=32, width=32, resize=40, antialias=True)
  np.testing.assert_array_equal(crop, image[4:36, 10:42])  # 9.5 is rounded to the even 10
