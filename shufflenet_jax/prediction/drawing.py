"""Copies pictures and draws boxes around the objects that were found in them."""

import colorsys
import io
import os
import zlib

from PIL import ImageDraw, ImageFont

from shufflenet_jax import storage
from shufflenet_jax.data import picture_formats
from shufflenet_jax.errors import UserError


class Drawing:
  """A folder of copies of pictures, with boxes and names, as `<name>_boxes.png`.

  Of two pictures of the same name, the second becomes `<name>_boxes_2.png`, and so on.
  """

  def __init__(self, folder: str):
    """Makes the folder, local or in a bucket.

    Raises:
      UserError, storage.StorageError: it cannot be made.
    """
    self.folder = storage.normalize(folder, "--draw=")
    if storage.is_file(self.folder):
      raise UserError(f"--draw={folder} is a file; name a folder")
    storage.make_folder(self.folder)
    self.count = 0
    self._used: set[str] = set()

  def add(self, path: str, boxes: list[tuple[str, tuple[float, float, float, float]]]) -> None:
    """Draws a picture's objects.

    Args:
      path: of the picture.
      boxes: of each object, the text to write and the box (ymin, xmin, ymax, xmax) in pixels of the picture.

    Raises:
      PictureError, FileNotFoundError: the picture cannot be read again.
      storage.StorageError: the folder cannot be written.
    """
    png = drawn(storage.read_bytes(storage.normalize(path)), boxes)
    storage.write_bytes(storage.join(self.folder, self._name(path)), png)
    self.count += 1

  def _name(self, path: str) -> str:
    stem = f"{os.path.splitext(os.path.basename(path))[0]}_boxes"
    name, number = stem, 1
    while name in self._used:
      number += 1
      name = f"{stem}_{number}"
    self._used.add(name)
    return f"{name}.png"


def drawn(encoded: bytes, boxes: list[tuple[str, tuple[float, float, float, float]]]) -> bytes:
  """A picture file -> a PNG file with boxes; see `Drawing.add`. A class has the same colour in every picture."""
  image = picture_formats.open_image(encoded).convert("RGB")
  draw = ImageDraw.Draw(image)
  thickness = max(2, round(min(image.size) / 200))
  font = ImageFont.load_default(max(12, round(min(image.size) / 32)))
  for text, (ymin, xmin, ymax, xmax) in reversed(boxes):  # the best on top
    draw.rectangle((xmin, ymin, max(xmin, xmax), max(ymin, ymax)), outline=_colour(text), width=thickness)
  used = []
  for text, box in boxes:
    _, _, width, height = draw.textbbox((0, 0), text, font=font)
    x, y = place = _free_place(box, (width, height), image.size, used)
    used.append((*place, x + width, y + height))
    draw.rectangle(used[-1], fill=_colour(text))
    draw.text(place, text, fill="black", font=font)
  png = io.BytesIO()
  image.save(png, "PNG")
  return png.getvalue()


def _free_place(box, size, picture_size, used) -> tuple[float, float]:
  """Where a text goes: above its box, or else the first line inside, and then below, that covers no other text.

  Args:
    box: (ymin, xmin, ymax, xmax) in pixels.
    size: width and height of the text.
    picture_size: width and height of the picture.
    used: (xmin, ymin, xmax, ymax) of the texts that have their places.

  Returns:
    x and y of the text's left upper corner; above the box if there is no free place.
  """
  ymin, xmin, ymax, _ = box
  width, height = size
  x, above = min(max(xmin, 0), max(0, picture_size[0] - width)), max(0, ymin - height)
  lines = range(int(max(0, ymin)), int(max(ymin, ymax) + height), int(height))
  for y in (above, *lines):
    is_free = all(
      x >= right or x + width <= left or y >= bottom or y + height <= top for left, top, right, bottom in used
    )
    if is_free and y + height <= picture_size[1]:
      return x, y
  return x, above


def _colour(text: str) -> tuple[int, int, int]:
  """A bright colour for the class in `name score`, always the same."""
  hue = zlib.crc32(text.rpartition(" ")[0].encode()) % 360 / 360
  return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.6, 1.0))
