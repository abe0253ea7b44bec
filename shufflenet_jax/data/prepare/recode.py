"""Shrinks a picture and reads its size, with Pillow."""

import io

from PIL import ExifTags, Image, ImageOps

from shufflenet_jax.data import picture_formats, pictures


def shrink(encoded: bytes, short_side: int, quality: int, upright: bool) -> bytes:
  """Returns a picture with a short side of at most `short_side`; the same bytes if nothing has to change.

  It is resized as for evaluation (bilinear, antialiased, the long side rounded to the nearest pixel), so that an
  evaluation with `eval_resize=short_side` does not resize it a second time. A picture that changes becomes a JPEG, RGB
  or grayscale, with 4:2:0 chroma; alpha is dropped, as by `pictures.decode`.

  Args:
    encoded: JPEG, PNG, BMP, GIF (first frame) or WebP.
    short_side: pixels.
    quality: of the JPEG.
    upright: whether to turn the pixels upright, by the EXIF orientation.

  Raises:
    picture_formats.PictureError: the picture cannot be decoded completely.
  """
  image = picture_formats.open_image(encoded)
  must_turn = upright and _orientation(image) in range(2, 9)
  if min(image.size) <= short_side and not must_turn:
    pictures.check(encoded)
    return encoded
  if must_turn:
    image = ImageOps.exif_transpose(image)
  if min(image.size) > short_side:
    scale = short_side / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
  buffer = io.BytesIO()
  image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
  return buffer.getvalue()


def read_size(path: str, upright: bool) -> tuple[int, int]:
  """The (width, height) of a picture file in pixels, from its header; with `upright`, after `shrink` has turned it.

  Raises:
    picture_formats.PictureError: the header is not that of a picture.
    OSError: the file cannot be read.
  """
  with open(path, "rb") as file:
    try:
      with Image.open(file, formats=picture_formats.FORMATS) as image:
        width, height = image.size
        is_turned = upright and _orientation(image) in range(5, 9)
    except Exception as error:  # Pillow's readers raise exceptions of any kind
      raise picture_formats.PictureError(str(error)) from None
  return (height, width) if is_turned else (width, height)


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # Pillow's readers raise exceptions of any kind; a picture with a broken tag is not turned
    return 1
