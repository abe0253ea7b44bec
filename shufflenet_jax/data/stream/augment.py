"""Image in, image out. Every random choice is a function of a seed that the caller derives from the example."""

import tensorflow as tf

from shufflenet_jax.data import pictures

# Long side over short side. A picture of 20,000 x 2 pixels whose short side becomes 256 would take gigabytes.
_MOST_ASPECT = 16


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
  """Rounds float32 in [0, 255], where bilinear weights leave what they are given."""
  return tf.cast(image + 0.5, tf.uint8)


def _resize_short_side(image: tf.Tensor, to: int, antialias: bool) -> tf.Tensor:
  shape = tf.cast(tf.shape(image)[:2], tf.float32)
  new_shape = tf.cast(tf.round(shape * (to / tf.reduce_min(shape))), tf.int32)
  return tf.image.resize(image, new_shape, antialias=antialias)  # bilinear, float32


def _without_far_ends(image: tf.Tensor) -> tf.Tensor:
  """The central part, `_MOST_ASPECT` times as long as wide, of a picture that is longer; others as they are."""
  shape = tf.shape(image)[:2]
  cut = tf.maximum(shape - _MOST_ASPECT * tf.reduce_min(shape), 0) // 2  # at both ends: the centre stays the centre
  return tf.slice(image, tf.concat([cut, [0]], 0), tf.concat([shape - 2 * cut, [3]], 0))


def center_crop(image: tf.Tensor, size: int, resize: int, antialias: bool) -> tf.Tensor:
  """Evaluation (section 4): short side to `resize` pixels, bilinear, then the central `size` x `size`.

  uint8 (h, w, 3) -> uint8 (size, size, 3).
  """
  image = _resize_short_side(_without_far_ends(image), resize, antialias)
  # Halves go to the even pixel, as in torchvision: //2 would move every fourth crop by one.
  corner = tf.cast(tf.round((tf.shape(image)[:2] - size) / 2), tf.int32)
  return _to_uint8(tf.slice(image, tf.concat([corner, [0]], 0), [size, size, 3]))


def _crop_box(shape: tf.Tensor, min_area: float, max_aspect: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """((y, x, 0), (height, width, -1)) of a random crop of an image of a shape (h, w, 3); int32."""
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
    size: side, pixels, that the crop will be resized to.
    min_area: smallest area of the crop, as a fraction of the image; the largest is 1.
    max_aspect: widest crop, width over height; the narrowest is its inverse.
    seed: int32 (2,).
  """
  sides = tf.shape(image)[:2]
  # Crops of a small picture would fall on few whole pixels; enlarged first, they fall between them. Of very long ones
  # hardly any crop has the area and the aspect wanted, and they would become too large.
  is_small = (tf.reduce_min(sides) < size) & (tf.reduce_max(sides) <= _MOST_ASPECT * tf.reduce_min(sides))
  image = tf.cond(is_small, lambda: _to_uint8(_resize_short_side(image, size, False)), lambda: image)
  return tf.slice(image, *_crop_box(tf.shape(image), min_area, max_aspect, seed))


def random_crop_of_jpeg(
  encoded: tf.Tensor, size: int, min_area: float, max_aspect: float, seed: tf.Tensor
) -> tf.Tensor:
  """As `random_crop` of a decoded JPEG, decoding the crop only, and a large one at 1/2, 1/4 or 1/8 of its resolution.

  What is left has `size` pixels a side or more, if the crop had. JPEGs are not
  enlarged.
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
  """A crop to its final size, bilinear, perhaps with other colours; uint8 (h, w, 3) -> uint8 (size, size, 3).

  Args:
    image: uint8 (h, w, 3).
    size: output side, pixels.
    color_jitter: brightness, contrast and saturation are each scaled by 1 - this to 1 + this; 0 leaves them.
    seed: int32 (2,).
  """
  image = tf.image.resize(image, (size, size))  # without antialiasing, which takes as long as decoding
  if color_jitter:
    low, high = 1 - color_jitter, 1 + color_jitter
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform((3,), seed, low, high))
    image *= brightness
    image = tf.reduce_mean(image) * (1 - contrast) + image * contrast
    gray = tf.image.rgb_to_grayscale(image)
    image = tf.clip_by_value(gray * (1 - saturation) + image * saturation, 0, 255)
  image = _to_uint8(image)
  image.set_shape((size, size, 3))
  return image
