"""Which files are pictures, and what their pixels are: one rule for training, evaluation, prediction and preparation.

The first bytes of a file decide its format, never its name. TensorFlow decodes JPEG, PNG and plain WebP, without
holding Python's lock, to the same pixels as Pillow. Everything else goes to Pillow, because TensorFlow ignores the
palettes of BMP files, returns only the part of a GIF file that its first frame covers, and fails for WebP with
transparency or animation and for BMP with fewer than 8 bits, with 16 bits, or compressed.
"""

import io
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image, ImageChops, WebPImagePlugin  # noqa: F401  otherwise Pillow loads all its formats to find it

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
NAMES = "JPEG, PNG, BMP, GIF, WebP"  # for messages
HEAD_BYTES = 16  # enough to recognise the format
_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")

# The accurate inverse DCT, which Pillow uses as well. TensorFlow's default, the fast one, differs by up to 18 of 255
# levels and is no faster in today's libjpeg-turbo.
DCT = "INTEGER_ACCURATE"

# Pillow refuses pictures above 2**29 bytes, which is TensorFlow's limit too, and already warns at half of that.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(ValueError):
  """The bytes are not a picture that can be decoded. The message gives the reason."""


def has_suffix(name: str) -> bool:
  """Whether the name of a file ends like that of a picture in one of the `FORMATS`."""
  return name.lower().endswith(_SUFFIXES)


def is_picture(head: bytes) -> bool:
  """Whether a file that begins with these `HEAD_BYTES` has one of the `FORMATS`."""
  is_bmp = head.startswith(b"BM") and head[6:10] == bytes(4)  # a text file that begins with BM has no zeros there
  is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
  return is_bmp or is_webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes the bytes of a JPEG, PNG, BMP, GIF or WebP file, or its first frame, to uint8 RGB (h, w, 3).

  Grayscale becomes three equal channels, CMYK is converted, 16-bit values are reduced to their upper eight bits, and
  alpha is dropped. The EXIF orientation is not applied, as in TensorFlow's and torchvision's ImageNet pipelines.

  Raises:
    tf.errors.InvalidArgumentError: the bytes are not such a picture; `check` finds the reason.
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
    return np.asarray(open_image(encoded.numpy()).convert("RGB"))
  except PictureError:  # TensorFlow would print the traceback of an exception
    return np.zeros((0, 0, 3), np.uint8)


def open_image(encoded: bytes) -> Image.Image:
  """Decodes a picture, or its first frame, with Pillow to the same pixels as `decode`; mode RGB, or L if it is gray.

  Raises:
    PictureError: it cannot be decoded completely.
  """
  try:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
      image.load()
      return _as_rgb_or_gray(image)
  except Image.UnidentifiedImageError:
    raise PictureError(_describe_other(encoded)) from None  # Pillow's message contains a memory address
  except Exception as error:  # Pillow's readers raise exceptions of any kind
    raise PictureError(str(error)) from None


def _as_rgb_or_gray(image: Image.Image) -> Image.Image:
  if image.mode.startswith("I;16") or image.mode == "I":
    # Pillow would clip 16-bit values, while TensorFlow keeps the upper eight bits.
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
  if image.mode == "CMYK" and "adobe" not in image.info:
    image = ImageChops.invert(image)  # Pillow inverts every CMYK JPEG, which is right only for Adobe's
  if "transparency" in image.info:
    image = image.convert("RGBA")  # otherwise Pillow warns that transparency will be lost
  return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def _describe_other(encoded: bytes) -> str:
  """Describes bytes that are in none of the `FORMATS`."""
  if not encoded:
    return "the file is empty"
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      other = image.format
  except Exception:  # as in `open_image`
    other = "HEIC" if encoded[4:8] == b"ftyp" else ""
  return f"it is {other}, not {NAMES}" if other else f"it is none of {NAMES}"


def why_not(encoded: bytes) -> str:
  """The reason why a picture cannot be decoded, in a few words; "" if it can."""
  try:
    check(encoded)
  except PictureError as error:
    return str(error)
  return ""


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
    raise PictureError("TensorFlow cannot decode it, though Pillow can; save it again") from None
