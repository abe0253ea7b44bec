"""Augmentation: image in, image out. Every random choice is a function of a seed that the caller derives."""

import tensorflow as tf

from shufflenet_jax.data import pictures
from shufflenet_jax.data.center_crop import MAX_SIDE_RATIO


def to_uint8(image: tf.Tensor) -> tf.Tensor:
  """Rounds float32 values in [0, 255]; bilinear interpolation never leaves that range."""
  return tf.cast(image + 0.5, tf.uint8)


def resize_short_side(image: tf.Tensor, to: int, antialias: bool) -> tf.Tensor:
  """Resizes bilinearly to a short side of `to` pixels, the long side rounded to the nearest pixel.

  uint8 (h, w, 3) -> float32 (height, width, 3).
  """
  shape = tf.cast(tf.shape(image)[:2], tf.float32)
  new_shape = tf.cast(tf.round(shape * (to / tf.reduce_min(shape))), tf.int32)
  return tf.image.resize(image, new_shape, antialias=antialias)


def _limit_side_ratio(image: tf.Tensor) -> tf.Tensor:
  """The central part of a picture whose long side exceeds `MAX_SIDE_RATIO` short sides; other pictures unchanged."""
  shape = tf.shape(image)[:2]
  margin = tf.maximum(shape - MAX_SIDE_RATIO * tf.reduce_min(shape), 0) // 2  # the same at both ends
  return tf.slice(image, tf.concat([margin, [0]], 0), tf.concat([shape - 2 * margin, [3]], 0))


def center_crop(image: tf.Tensor, size: int, resize: int, antialias: bool) -> tf.Tensor:
  """The crop of evaluation (section 4): short side to `resize` pixels, bilinear, then the central `size` x `size`.

  uint8 (h, w, 3) -> uint8 (size, size, 3). The same in NumPy: `data/center_crop.py`.
  """
  image = resize_short_side(_limit_side_ratio(image), resize, antialias)
  # Halves are rounded to the even pixel, as in torchvision; //2 would shift every fourth crop by one pixel.
  corner = tf.cast(tf.round((tf.shape(image)[:2] - size) / 2), tf.int32)
  return to_uint8(tf.slice(image, tf.concat([corner, [0]], 0), [size, size, 3]))


def _crop_box(shape: tf.Tensor, min_area: float, max_aspect: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """((y, x, 0), (height, width, -1)), int32, of a random crop of an image with the given shape (h, w, 3)."""
  begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
    shape,
    tf.zeros((1, 0, 4)),
    seed=seed,
    area_range=(min_area, 1.0),
    aspect_ratio_range=(1 / max_aspect, max_aspect),
    min_object_covered=0.0,
    max_attempts=10,
    use_image_if_no_bounding_boxes=True,
  )
  return begin, extent


def random_crop(image: tf.Tensor, size: int, min_area: float, max_aspect: float, seed: tf.Tensor) -> tf.Tensor:
  """A random crop; uint8 (h, w, 3) -> uint8 (height, width, 3).

  Args:
    image: uint8 (h, w, 3).
    size: side in pixels to which the crop will be resized.
    min_area: smallest area of the crop, as a fraction of the image; the largest is 1.
    max_aspect: width / height of the widest crop; that of the narrowest is the inverse.
    seed: int32 (2,).
  """
  sides = tf.shape(image)[:2]
  # The sides and corner of a crop are whole pixels, too coarse for a small picture, so we enlarge it first. We do not
  # enlarge a very long one: it could become gigabytes, and hardly any of its crops has the wanted area and aspect.
  is_small = (tf.reduce_min(sides) < size) & (tf.reduce_max(sides) <= MAX_SIDE_RATIO * tf.reduce_min(sides))
  image = tf.cond(is_small, lambda: to_uint8(resize_short_side(image, size, False)), lambda: image)
  return tf.slice(image, *_crop_box(tf.shape(image), min_area, max_aspect, seed))


def random_crop_of_jpeg(
  encoded: tf.Tensor, size: int, min_area: float, max_aspect: float, seed: tf.Tensor
) -> tf.Tensor:
  """`random_crop` of a JPEG, decoding nothing but the crop, and a large crop at 1/2, 1/4 or 1/8 of its resolution.

  The reduced crop still has at least `size` pixels per side if the full one has. Small JPEGs are not enlarged.
  """
  begin, extent = _crop_box(tf.image.extract_jpeg_shape(encoded), min_area, max_aspect, seed)
  window = tf.concat([begin[:2], extent[:2]], 0)

  def decode_at(ratio):
    return lambda: tf.image.decode_and_crop_jpeg(
      encoded, window // ratio, channels=3, ratio=ratio, dct_method=pictures.DCT
    )

  ratios = (1, 2, 4, 8)
  fits = [tf.reduce_min(extent[:2]) >= size * ratio for ratio in ratios[1:]]
  return tf.switch_case(tf.reduce_sum(tf.cast(fits, tf.int32)), [decode_at(ratio) for ratio in ratios])


def resize_crop(image: tf.Tensor, size: int, color_jitter: float, seed: tf.Tensor) -> tf.Tensor:
  """Resizes a crop bilinearly, and changes its colours; uint8 (h, w, 3) -> uint8 (size, size, 3).

  Args:
    image: uint8 (h, w, 3).
    size: output side, pixels.
    color_jitter: brightness, contrast and saturation are each multiplied by a factor between 1 - this and 1 + this; 0
      leaves the colours unchanged.
    seed: int32 (2,).
  """
  image = tf.image.resize(image, (size, size))  # antialiasing would take as long as decoding
  if color_jitter:
    low, high = 1 - color_jitter, 1 + color_jitter
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform((3,), seed, low, high))
    image *= brightness
    image = tf.reduce_mean(image) * (1 - contrast) + image * contrast
    gray = tf.image.rgb_to_grayscale(image)
    image = tf.clip_by_value(gray * (1 - saturation) + image * saturation, 0, 255)
  image = to_uint8(image)
  image.set_shape((size, size, 3))
  return image
