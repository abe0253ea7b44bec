"""The same picture with a smaller short side. By Pillow."""

import io

from PIL import ExifTags, Image, ImageOps

from shufflenet_jax.data import pictures


def shrink(encoded: bytes, short_side: int, quality: int, upright: bool) -> bytes:
  """The picture with its short side at most `short_side`; the bytes as they are where nothing needs to change.

  Resized as for evaluation (bilinear, antialiased, the long side rounded to
  the nearest pixel), so that evaluating at `eval_resize=short_side` resizes no
  second time. What changes becomes JPEG, RGB or grayscale, 4:2:0; alpha is
  dropped, as `pictures.decode` does.

  Args:
    encoded: JPEG, PNG, BMP, GIF (first frame) or WebP.
    short_side: pixels.
    quality: of the JPEG.
    upright: whether to turn the pixels as the EXIF orientation says.

  Raises:
    pictures.PictureError: it cannot be decoded to its end.
  """
  image = pictures.open_image(encoded)
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


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # Pillow's readers let out whatever went wrong in them; a broken tag turns nothing
    return 1
