"""Reads Pascal VOC's annotations: a list of names in ImageSets/Main/, and an XML file for each name.

VOC's corners are pixels counted from 1, both included. Here 1 is subtracted from xmin and ymin, so that pixel 1 begins
at 0 and xmax - xmin is the width. A box with xmax <= xmin or ymax <= ymin in the file is of no size: tools write such
boxes for a click.
"""

import math
import os
import xml.etree.ElementTree as ElementTree

from shufflenet_jax.data.prepare.annotations import AnnotatedPicture, Annotations, Box
from shufflenet_jax.errors import UserError


def read(source: str, path: str, folder: str | None) -> Annotations:
  """Reads the list and the XML files that it names; a picture without a size has size 0 here.

  A picture's id is its position in the list; a box's id is its position among all boxes of the list; both count from 0.

  Args:
    source: for messages, for instance `--train=VOC2007/ImageSets/Main/trainval.txt`.
    path: of the list, `X/ImageSets/Main/Y.txt`; the XML files are `X/Annotations/<name>.xml`.
    folder: of the pictures; None: `X/JPEGImages`. A picture is the XML's `filename`, or if there is no such file,
      `<name>.jpg`.

  Raises:
    UserError: the list or an XML file is absent, cannot be read, is not VOC's or is incomplete.
  """
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(path))))
  xml_folder = os.path.join(root, "Annotations")
  if not os.path.isdir(xml_folder):
    raise UserError(
      f"{source}: there is no folder {xml_folder}; the list must be DIR/ImageSets/Main/NAME.txt, the annotations in"
      " DIR/Annotations"
    )
  folder = folder or os.path.join(root, "JPEGImages")
  names = _names(source, path)
  pictures, num_boxes = [], 0
  for position, name in enumerate(names):
    picture = _read_picture(source, os.path.join(xml_folder, f"{name}.xml"), folder, position, num_boxes)
    num_boxes += len(picture.boxes)
    pictures.append(picture)
  return Annotations(folder, pictures, {})


def _names(source: str, path: str) -> list[str]:
  try:
    with open(path, encoding="utf-8-sig") as file:
      names = [line.strip() for line in file if line.strip()]
  except OSError as error:
    raise UserError(f"{source} cannot be read: {error.strerror}") from None
  except UnicodeDecodeError as error:
    raise UserError(f"{source} is not a text file ({error}); it must be a list with one name per line") from None
  seen = set()
  for name in names:
    if name in seen:
      raise UserError(f"{source} names {name!r} twice; remove one of the lines")
    seen.add(name)
  return names


def _read_picture(source: str, path: str, folder: str, position: int, first_box: int) -> AnnotatedPicture:
  root = _parse(source, path)
  width, height = (int(_number(source, path, root, f"size/{key}", default=0)) for key in ("width", "height"))
  boxes = [
    _box(source, path, element, first_box + i, f"object {i + 1} of {len(root.findall('object'))}")
    for i, element in enumerate(root.iterfind("object"))
  ]
  name = os.path.basename(_text(root, "filename"))
  if not name or not os.path.isfile(os.path.join(folder, name)):
    name = f"{os.path.splitext(os.path.basename(path))[0]}.jpg"
  return AnnotatedPicture(name, os.path.join(folder, name), width, height, image_id=position, boxes=boxes)


def _parse(source: str, path: str) -> ElementTree.Element:
  try:
    with open(path, "rb") as file:
      content = file.read()
  except FileNotFoundError:
    raise UserError(f"{source} names a picture without annotations: {path} does not exist") from None
  except OSError as error:
    raise UserError(f"{source}: {path} cannot be read: {error.strerror}") from None
  if b"<!ENTITY" in content.replace(b"\0", b""):  # entities can unfold to gigabytes; UTF-16 has zeros between letters
    raise UserError(f"{source}: {path} defines XML entities, which no annotation needs; remove them")
  try:
    root = ElementTree.fromstring(content)
  except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two: an unknown encoding
    raise UserError(f"{source}: {path} is cut short or not XML ({error}); get an intact copy") from None
  if root.tag != "annotation":
    raise UserError(f"{source}: {path} is not a Pascal VOC annotation: it begins with <{root.tag}>")
  return root


def _box(source: str, path: str, element: ElementTree.Element, id: int, what: str) -> Box:
  category = _text(element, "name")
  if not category:
    raise UserError(f"{source}: {path}: {what} has no name; give it one")
  xmin, ymin, xmax, ymax = (
    _number(source, path, element, f"bndbox/{key}", what) for key in ("xmin", "ymin", "xmax", "ymax")
  )
  # A box that ends where it begins gets size 0: subtracting 1 from its beginning alone would make it one pixel wide.
  xmax, ymax = (end if end > begin else begin - 1 for begin, end in ((xmin, xmax), (ymin, ymax)))
  difficult = _number(source, path, element, "difficult", what, default=0)
  return Box(id, category, ymin - 1, xmin - 1, ymax, xmax, area=None, is_crowd=difficult != 0)


def _text(element: ElementTree.Element, path: str) -> str:
  return (element.findtext(path) or "").strip()


def _number(source: str, path: str, element: ElementTree.Element, key: str, what: str = "it", default=None) -> float:
  text = _text(element, key)
  if not text and default is not None:
    return default
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise UserError(f"{source}: {path}: {what} has <{key}> {text!r:.60}, which must be a number")
  return value
