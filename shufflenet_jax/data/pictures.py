"""What a picture is, and its pixels: one rule for training, evaluation, prediction and `data.prepare`.

The format follows from the first bytes, never from the name. TensorFlow decodes JPEG, PNG and plain WebP, outside
Python's lock, to the same pixels as Pillow. All else goes to Pillow, because TensorFlow ignores the palettes of BMP
files, gives of a GIF file only the part that its first frame covers, and fails at WebP with transparency or animation
and at BMP of fewer than 8 bits, of 16 bits, or compressed.
"""

import io
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image, ImageChops, WebPImagePlugin  # noqa: F401  or Pillow would load all its formats to find it

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
NAMES = "JPEG, PNG, BMP, GIF, WebP"  # for messages
HEAD_BYTES = 16  # that tell the format
_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")

# The accurate transform, as Pillow decodes: the fast one, which TensorFlow takes by itself, moves pixels by up to 18
# of 255, and is no faster in today's libjpeg-turbo.
DCT = "INTEGER_ACCURATE"

# Pillow warns from half the number of pixels on at which it refuses, which is TensorFlow's limit too: 2**29 bytes.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(ValueError):
  """The bytes are no picture that can be decoded. The message says why."""


def has_suffix(name: str) -> bool:
  """Whether a file is named like a picture of one of the `FORMATS`."""
  return name.lower().endswith(_SUFFIXES)


def is_picture(head: bytes) -> bool:
  """Whether a file that begins with these `HEAD_BYTES` is of one of the `FORMATS`."""
  is_bmp = head.startswith(b"BM") and head[6:10] == bytes(4)  # no text that begins with BM has zeros there
  is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
  return is_bmp or is_webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """The bytes of a JPEG, PNG, BMP, GIF or WebP file (of several frames: the first) -> uint8 RGB (h, w, 3).

  Grayscale becomes three equal channels, CMYK is converted, of 16 bits the upper eight are taken, alpha is dropped.
  An EXIF orientation is not applied: pixels as stored, as in TensorFlow's and
  torchvision's ImageNet pipelines.

  Raises:
    tf.errors.InvalidArgumentError: they are no such picture; `check` says why.
  """
  is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
  image = tf.cond(  # each operation here costs small pictures a noticeable part of their time
    tf.io.is_jpeg(encoded) | is_png,
    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=DCT),  # which decodes PNG as well
    lambda: _decode_others(encoded),
  )
  image.set_shape((None, None, 3))
  return image


def _decode_others(encoded: tf.Tensor) -> tf.Tensor:
  head = tf.strings.join([tf.strings.substr(encoded, 0, HEAD_BYTES), bytes(HEAD_BYTES)])
  return tf.cond(
    tf.strings.substr(head, 8, 8) == b"WEBPVP8 ",  # with alpha or animation it begins by VP8X or VP8L
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
  except PictureError:  # TensorFlow would print a traceback of what is raised here
    return np.zeros((0, 0, 3), np.uint8)


def open_image(encoded: bytes) -> Image.Image:
  """The first frame by Pillow, decoded, of mode RGB, or L where it is gray; the same pixels as `decode`.

  Raises:
    PictureError: it cannot be decoded to its end.
  """
  try:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
      image.load()
      return _as_rgb_or_gray(image)
  except Image.UnidentifiedImageError:
    raise PictureError(_what_else(encoded)) from None  # Pillow's words name an address in memory
  except Exception as error:  # Pillow's readers let out whatever went wrong in them
    raise PictureError(str(error)) from None


def _as_rgb_or_gray(image: Image.Image) -> Image.Image:
  if image.mode.startswith("I;16") or image.mode == "I":
    # Pillow clips 16 bits where TensorFlow keeps the upper eight.
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
  if image.mode == "CMYK" and "adobe" not in image.info:
    image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for an inverted one, as only Adobe's are
  if "transparency" in image.info:
    image = image.convert("RGBA")  # else Pillow warns that it is about to be lost
  return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def _what_else(encoded: bytes) -> str:
  """Why bytes that are none of the `FORMATS` cannot be used."""
  if not encoded:
    return "the file is empty"
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      found = image.format
  except Exception:  # as in `open_image`
    found = "HEIC" if encoded[4:8] == b"ftyp" else ""
  return f"it is {found}, not {NAMES}" if found else f"it is none of {NAMES}"


def why_not(encoded: bytes) -> str:
  """A few words on why a picture cannot be decoded; "" if it can."""
  try:
    check(encoded)
  except PictureError as error:
    return str(error)
  return ""


def check(encoded: bytes) -> None:
  """Decodes a whole picture as training would, JPEGs at an eighth of their resolution, which finds the same faults.

  Raises:
    PictureError: it cannot be decoded.
  """
  is_jpeg = encoded.startswith(b"\xff\xd8\xff")
  if is_jpeg and b"\xff\xd9" not in encoded[-1024:]:
    open_image(encoded)  # TensorFlow would print to stderr that it is cut short
  try:
    if is_jpeg:
      tf.io.decode_jpeg(encoded, channels=3, ratio=8)
    else:
      decode(tf.constant(encoded))
  except tf.errors.InvalidArgumentError:
    open_image(encoded)  # gives the reason in plain words
    raise PictureError("TensorFlow cannot decode it, though Pillow can; save it anew") from None
