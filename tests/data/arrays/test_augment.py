"""Crops on the devices, compared with TensorFlow's."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from shufflenet_jax.data.arrays import augment
from shufflenet_jax.data.stream import augment as stream_augment

SEED = 3


def data(**changes):
  defaults = {
    "image_size": 24, "eval_resize": 28, "min_crop_area": 0.3, "max_crop_aspect": 4 / 3, "flip": False,
    "color_jitter": 0.0, "antialias": True,
  }  # fmt: skip
  return ml_collections.ConfigDict(defaults | changes)


def noise(height, width, count=4):
  coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 8, 3)).astype(np.float32)
  return np.asarray(jax.image.resize(coarse, (count, height, width, 3), "linear")).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 50), (33, 90), (64, 20)])
@pytest.mark.parametrize("antialias", [True, False])
def test_center_crop_is_that_of_the_streams(height, width, antialias):
  config = data(antialias=antialias)
  images = noise(height, width)
  ours = np.asarray(augment.center_crop(jnp.asarray(images), config)).astype(int)
  theirs = np.stack([stream_augment.center_crop(image, 24, 28, antialias).numpy() for image in images]).astype(int)
  assert ours.shape == (4, 24, 24, 3)
  assert np.abs(ours - theirs).max() <= 1


def crops(image, config, count):
  """`count` crops of one picture, uint8 (count, s, s, 3)."""
  images, labels = jnp.asarray(image)[None], jnp.zeros(1, jnp.int32)
  rows = jnp.zeros(count, jnp.int32), jnp.arange(count, dtype=jnp.int32)
  return np.asarray(augment.training_batch(images, labels, *rows, config=config, seed=SEED)["image"])


def windows(config, height, width, count=500):
  """Top, left, height and width of random crops, (count, 4): read from crops of pictures of rising brightness."""
  size = config.image_size
  rising = np.linspace(0, 250, max(height, width))
  found = []
  for picture, extent in (
    (np.broadcast_to(rising[:height, None, None], (height, width, 3)), height),
    (np.broadcast_to(rising[None, :width, None], (height, width, 3)), width),
  ):
    crop = crops(picture.astype(np.uint8), config, count).astype(float)[..., 0]
    line = crop[:, :, size // 2] if extent == height and len(found) == 0 else crop[:, size // 2, :]
    inner = line[:, 4:-4] / (rising[1] - rising[0])  # away from the border, where a crop repeats the last pixel
    slope = (inner[:, -1] - inner[:, 0]) / (inner.shape[1] - 1)
    begin = inner[:, 0] - 3.5 * slope
    found += [begin, slope * size]
  return np.stack([found[0], found[2], found[1], found[3]], 1)


def test_crops_are_distributed_like_tensorflows():
  """The mean and the spread of place, height and width, for a picture of 100 x 125 pixels."""
  config = data(image_size=64)
  ours = windows(config, 100, 125)

  @tf.function
  def their_window(seed):
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
      (100, 125, 3), tf.zeros((1, 0, 4)), seed=seed, area_range=(0.3, 1.0), aspect_ratio_range=(3 / 4, 4 / 3),
      min_object_covered=0.0, max_attempts=10, use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    return tf.concat([begin[:2], extent[:2]], 0)

  theirs = np.array([their_window(tf.constant([i, 1])) for i in range(len(ours))], float)
  np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=3)
  np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=3)
  assert (ours[:, 2] * ours[:, 3] > 0.28 * 100 * 125).all()


def test_half_of_the_crops_are_mirrored():
  image = np.zeros((32, 32, 3), np.uint8)
  image[:, 16:] = 200
  flipped = crops(image, data(flip=True, min_crop_area=1.0, max_crop_aspect=1.0), 64)
  left = flipped[:, :, :8].mean((1, 2, 3)) > 100
  assert 0.3 < left.mean() < 0.7


def test_a_crop_depends_on_seed_epoch_and_example_alone():
  images, labels, config = jnp.asarray(noise(32, 32)), jnp.arange(4, dtype=jnp.int32), data()
  ids, epochs = jnp.array([2, 0, 2, 1]), jnp.array([5, 5, 6, 5])

  def batch(ids, epochs, seed=SEED):
    return np.asarray(augment.training_batch(images, labels, ids, epochs, config=config, seed=seed)["image"])

  whole = batch(ids, epochs)
  np.testing.assert_array_equal(batch(ids[::-1], epochs[::-1]), whole[::-1])
  assert (whole[0] != whole[2]).any()
  assert (batch(ids, epochs, seed=4) != whole).any()


def test_color_jitter_changes_brightness_by_at_most_its_strength():
  image = np.full((32, 32, 3), 100, np.uint8)
  gray = crops(image, data(color_jitter=0.4), 32)[:, 0, 0, 0].astype(float)
  assert gray.min() >= 59 and gray.max() <= 141 and gray.std() > 10
