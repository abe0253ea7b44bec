"""Which files are pictures, and what their pixels are according to Pillow. Nothing here needs TensorFlow.

The first bytes of a file decide its format, never its name.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageChops, WebPImagePlugin  # noqa: F401  otherwise Pillow loads all its plugins to read WebP

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
NAMES = "JPEG, PNG, BMP, GIF, WebP"  # for messages
HEAD_BYTES = 16  # enough to recognise the format
_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")

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


def pixels(encoded: bytes) -> np.ndarray:
  """Decodes a picture, or its first frame, with Pillow to uint8 RGB (h, w, 3), as `pictures.decode` with TensorFlow.

  Raises:
    PictureError: it cannot be decoded completely.
  """
  return np.asarray(open_image(encoded).convert("RGB"))


def open_image(encoded: bytes) -> Image.Image:
  """Decodes a picture, or its first frame, with Pillow; mode RGB, or L if it is gray. The pixels are those of `pixels`.

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
