"""Image in, image out: crops, colours, decoding at a fraction."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data import pictures
from shufflenet_jax.data.stream import augment


def test_evaluation_crop_is_the_centre_and_keeps_colours_in_order():
  image = np.zeros((40, 64, 3), np.uint8)
  image[..., 0] = np.arange(64) * 4  # red grows to the right
  image[..., 2] = (np.arange(40) * 6)[:, None]  # blue grows downwards
  crop = augment.center_crop(pictures.decode(tf.io.encode_png(image)), 32, 40, antialias=False).numpy()
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
    whole = augment.random_crop(pictures.decode(encoded), *arguments).numpy()
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


def resized_and_then_cut(image, size, resize, antialias):
  """The evaluation crop by its definition, which makes the whole picture larger first."""
  sides = np.array(image.shape[:2])
  sides = np.round(sides * (resize / sides.min())).astype(int)
  corner = np.round((sides - size) / 2).astype(int)
  whole = tf.image.resize(image, sides, antialias=antialias).numpy()
  return (whole[corner[0] : corner[0] + size, corner[1] : corner[1] + size] + 0.5).astype(np.uint8)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sides", [(40, 64), (375, 500), (61, 900), (20, 320), (2, 32), (1, 1), (333, 22)])
def test_ordinary_pictures_are_cropped_bit_for_bit_by_the_definition(sides, antialias):
  image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
  crop = augment.center_crop(tf.constant(image), 32, 40, antialias).numpy()
  np.testing.assert_array_equal(crop, resized_and_then_cut(image, 32, 40, antialias))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sides", [(2, 201), (3, 200), (1000, 50), (50, 801), (1, 40)])
def test_the_crop_of_a_very_long_picture_is_its_centre(sides, antialias):
  place = np.linspace(0, 255, max(sides))  # along the longer side
  image = np.broadcast_to(place if sides[1] > sides[0] else place[:, None], sides)
  image = np.repeat(image[..., None].astype(np.uint8), 3, -1)
  crop = augment.center_crop(tf.constant(image), 32, 40, antialias).numpy()
  np.testing.assert_allclose(crop.astype(int), resized_and_then_cut(image, 32, 40, antialias).astype(int), atol=1)


MEASURED = """
import resource
import numpy as np, tensorflow as tf
from shufflenet_jax.data.stream import augment
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small, seed = tf.zeros((300, 400, 3), tf.uint8), tf.constant([0, 0])
def crops(image):
  for antialias in (False, True):
    augment.center_crop(image, 224, 256, antialias)
  augment.resize_crop(augment.random_crop(image, 224, 0.08, 4 / 3, seed), 224, 0.0, seed)
crops(small)
before = peak()
for shape in ((2, 20_000, 3), (20_000, 2, 3), (1, 60_000, 3), (255, 60_000, 3)):
  crops(tf.zeros(shape, tf.uint8))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_length_of_a_picture():
  """The largest of these is 46 MB; with its short side made 224 or 256 first, 20,000 x 2 would take gigabytes."""
  done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, timeout=120, check=True)
  assert float(done.stdout) < 500, done.stdout
