"""One picture's bytes: whether they are a picture, and the same picture with a smaller short side. By Pillow."""

import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # what augment.decode reads
# What stands at the end of a whole file. A thumbnail within the picture ends so as well, but not there.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_END_BYTES = 1024


class PictureError(Exception):
  """The bytes are no picture. The message says why."""


def check(encoded: bytes) -> None:
  """That the header is a picture's and its end is there; only where that is in doubt, everything is decoded.

  Raises:
    PictureError: otherwise.
  """
  with _open(encoded) as image:
    end = _ENDS.get(image.format)
    if end is None or end not in encoded[-_END_BYTES:]:
      _load(image)


def shrink(encoded: bytes, short_side: int, quality: int, upright: bool) -> bytes:
  """The picture with its short side at most `short_side`; the bytes as they are where nothing needs to change.

  Resized as for evaluation (bilinear, antialiased, the long side rounded to
  the nearest pixel), so that evaluating at `eval_resize=short_side` resizes no
  second time. What changes becomes JPEG, RGB or grayscale, 4:2:0; alpha is
  dropped, as TensorFlow does.

  Args:
    encoded: JPEG, PNG, BMP, GIF (first frame) or WebP.
    short_side: pixels.
    quality: of the JPEG.
    upright: whether to turn the pixels as the EXIF orientation says.

  Raises:
    PictureError: it cannot be decoded to its end.
  """
  with _open(encoded) as image:
    _load(image)
    must_turn = upright and _orientation(image) in range(2, 9)
    if min(image.size) <= short_side and not must_turn:
      return encoded
    if must_turn:
      image = ImageOps.exif_transpose(image)
    image = _as_rgb_or_gray(image)
  if min(image.size) > short_side:
    scale = short_side / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
  buffer = io.BytesIO()
  image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
  return buffer.getvalue()


def _open(encoded: bytes) -> Image.Image:
  try:
    return Image.open(io.BytesIO(encoded), formats=_FORMATS)
  except Image.UnidentifiedImageError:
    raise PictureError(f"no {', '.join(_FORMATS)}") from None  # Pillow's words name an address in memory
  except Exception as error:  # Pillow's readers let out whatever went wrong in them
    raise PictureError(str(error)) from None


def _load(image: Image.Image) -> None:
  try:
    image.load()
  except Exception as error:  # as above
    raise PictureError(str(error)) from None


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # as above; a broken tag turns nothing
    return 1


def _as_rgb_or_gray(image: Image.Image) -> Image.Image:
  if image.mode.startswith("I;16") or image.mode == "I":
    # Pillow clips 16 bits where TensorFlow keeps the upper eight.
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
  if "transparency" in image.info:
    image = image.convert("RGBA")  # else Pillow warns that it is about to be lost
  return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
