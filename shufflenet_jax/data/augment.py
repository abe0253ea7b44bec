"""Image in, image out. Every random choice is a function of a seed that the caller derives from the example."""

import tensorflow as tf


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """JPEG, PNG, BMP, GIF (first frame) or WebP bytes -> uint8 (h, w, 3).

  JPEGs by the accurate transform, as Pillow decodes them: the fast one, which
  TensorFlow takes by itself, moves pixels by up to 18 of 255.
  """
  image = tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
    lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
  )
  image.set_shape((None, None, 3))
  return image


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
  return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)


def _resize_short_side(image: tf.Tensor, to: int, antialias: bool) -> tf.Tensor:
  shape = tf.cast(tf.shape(image)[:2], tf.float32)
  new_shape = tf.cast(tf.round(shape * (to / tf.reduce_min(shape))), tf.int32)
  return tf.image.resize(image, new_shape, antialias=antialias)  # bilinear, float32


def center_crop(image: tf.Tensor, size: int, resize: int, antialias: bool) -> tf.Tensor:
  """Evaluation (section 4): short side to `resize` pixels, bilinear, then the central `size` x `size`.

  uint8 (h, w, 3) -> uint8 (size, size, 3).
  """
  image = _resize_short_side(image, resize, antialias)
  # Halves go to the even pixel, as in torchvision: //2 would move every fourth crop by one.
  corner = tf.cast(tf.round((tf.shape(image)[:2] - size) / 2), tf.int32)
  return _to_uint8(tf.slice(image, tf.concat([corner, [0]], 0), [size, size, 3]))


def random_resized_crop(
  image: tf.Tensor, size: int, min_area: float, max_aspect: float, flip: bool, antialias: bool, seed: tf.Tensor
) -> tf.Tensor:
  """Training: a random crop resized to `size` x `size`, bilinear, perhaps mirrored.

  Args:
    image: uint8 (h, w, 3).
    size: output side, pixels.
    min_area: smallest area of the crop, as a fraction of the image; the largest is 1.
    max_aspect: widest crop, width over height; the narrowest is its inverse.
    flip: whether half of the images are mirrored.
    antialias: whether to smooth where the crop is made smaller.
    seed: int32 (2,).

  Returns:
    uint8 (size, size, 3).
  """
  is_small = tf.reduce_min(tf.shape(image)[:2]) < size
  # Crops of a small picture would fall on few whole pixels; enlarged first, they fall between them.
  image = tf.cond(is_small, lambda: _to_uint8(_resize_short_side(image, size, antialias)), lambda: image)
  begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
    tf.shape(image),
    tf.zeros((1, 0, 4)),
    seed=seed,
    area_range=(min_area, 1.0),
    aspect_ratio_range=(1 / max_aspect, max_aspect),
    min_object_covered=0.0,
    max_attempts=10,
    use_image_if_no_bounding_boxes=True,
  )
  image = _to_uint8(tf.image.resize(tf.slice(image, begin, extent), (size, size), antialias=antialias))
  if flip:
    image = tf.image.stateless_random_flip_left_right(image, seed=seed + 1)
  image.set_shape((size, size, 3))
  return image
