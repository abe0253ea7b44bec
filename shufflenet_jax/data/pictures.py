"""What the pixels of a picture are: one rule for training, evaluation, prediction and preparation.

The first bytes of a file decide its format, never its name (`picture_formats.py`). TensorFlow decodes JPEG, PNG and
plain WebP, without holding Python's lock, to the same pixels as Pillow. Everything else goes to Pillow, because
TensorFlow ignores the palettes of BMP files, returns only the part of a GIF file that its first frame covers, and fails
for WebP with transparency or animation and for BMP with fewer than 8 bits, with 16 bits, or compressed.
"""

import numpy as np
import tensorflow as tf

from shufflenet_jax.data.picture_formats import HEAD_BYTES, PictureError, open_image, pixels

# The accurate inverse DCT, which Pillow uses as well. TensorFlow's default, the fast one, differs by up to 18 of 255
# levels and is no faster in today's libjpeg-turbo.
DCT = "INTEGER_ACCURATE"

_ONLY_PILLOW = "TensorFlow cannot decode it, though Pillow can; save it again"


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes the bytes of a JPEG, PNG, BMP, GIF or WebP file, or its first frame, to uint8 RGB (h, w, 3).

  Grayscale becomes three equal channels, CMYK is converted, 16-bit values are reduced to their upper eight bits, and
  alpha is dropped. The EXIF orientation is not applied, as in TensorFlow's and torchvision's ImageNet pipelines.

  Raises:
    tf.errors.InvalidArgumentError: the bytes are not such a picture; `decode_file` gives the reason.
  """
  is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
  image = tf.cond(  # for small pictures, each operation here takes a noticeable share of the time
    tf.io.is_jpeg(encoded) | is_png,
    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=DCT),  # decodes PNG as well
    lambda: _decode_others(encoded),
  )
  image.set_shape((None, None, 3))
  return image


def _decode_others(encoded: tf.Tensor) -> tf.Tensor:
  head = tf.strings.join([tf.strings.substr(encoded, 0, HEAD_BYTES), bytes(HEAD_BYTES)])
  return tf.cond(
    tf.strings.substr(head, 8, 8) == b"WEBPVP8 ",  # WebP without alpha or animation; others have VP8X or VP8L here
    lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    lambda: _decode_by_pillow(encoded),
  )


def _decode_by_pillow(encoded: tf.Tensor) -> tf.Tensor:
  image = tf.py_function(_pixels_or_none, [encoded], tf.uint8)
  with tf.control_dependencies([tf.debugging.Assert(tf.size(image) > 0, ["Pillow cannot decode the picture"])]):
    image = tf.identity(image)
  image.set_shape((None, None, 3))
  return image


@tf.autograph.experimental.do_not_convert
def _pixels_or_none(encoded: tf.Tensor) -> np.ndarray:
  try:
    return pixels(encoded.numpy())
  except PictureError:  # TensorFlow would print the traceback of an exception
    return np.zeros((0, 0, 3), np.uint8)


def decode_file(encoded: bytes) -> tf.Tensor:
  """`decode` of one file, outside of any graph, with a clearer error.

  Raises:
    PictureError: it cannot be decoded.
  """
  try:
    return decode(encoded)
  except tf.errors.InvalidArgumentError:
    check(encoded)  # raises with the reason
    raise PictureError(_ONLY_PILLOW) from None


def check(encoded: bytes) -> None:
  """Decodes a whole picture as training would, but JPEGs at an eighth of their resolution, which finds the same faults.

  Raises:
    PictureError: it cannot be decoded.
  """
  is_jpeg = encoded.startswith(b"\xff\xd8\xff")
  if is_jpeg and b"\xff\xd9" not in encoded[-1024:]:
    open_image(encoded)  # raises; TensorFlow would print to stderr that the file is truncated
  try:
    if is_jpeg:
      tf.io.decode_jpeg(encoded, channels=3, ratio=8)
    else:
      decode(tf.constant(encoded))
  except tf.errors.InvalidArgumentError:
    open_image(encoded)  # raises with a clearer reason
    raise PictureError(_ONLY_PILLOW) from None
