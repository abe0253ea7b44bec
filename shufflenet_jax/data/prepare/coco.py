"""Reads COCO's annotation files, `instances_*.json`."""

import json
import math
import os

from shufflenet_jax.data.prepare.annotations import AnnotatedPicture, Annotations, Box
from shufflenet_jax.errors import UserError

_LISTS = ("images", "annotations", "categories")


def read(source: str, path: str, folder: str | None) -> Annotations:
  """Reads a file; a picture without width or height has size 0 here, an annotation without `iscrowd` is no crowd.

  Args:
    source: for messages, for instance `--train=instances_train.json`.
    path: of the file.
    folder: of the pictures. None: for `X/annotations/instances_Y.json` it is `X/Y`, as in COCO itself; if there is no
      such folder, the one that holds the file.

  Raises:
    UserError: the file cannot be read, is not COCO's, or contradicts itself.
  """
  content = _load(source, path)
  if folder is None:
    folder = _folder(path)
  categories = _categories(source, content["categories"])
  names = {id: name for name, id in categories.items()}
  pictures = {}
  for image in content["images"]:
    id = _whole(source, "images", image, "id")
    if id in pictures:
      raise UserError(f"{source} has two images with the id {id}; give each its own")
    name = _text(source, f"image {id}", image, "file_name")
    width, height = (_whole(source, f"image {id}", image, key, default=0) for key in ("width", "height"))
    pictures[id] = AnnotatedPicture(name, os.path.join(folder, name), width, height, image_id=id, boxes=[])
  for annotation in content["annotations"]:
    id = _whole(source, "annotations", annotation, "id")
    image_id, category_id = (_whole(source, f"annotation {id}", annotation, key) for key in ("image_id", "category_id"))
    if image_id not in pictures:
      raise UserError(f"{source}: annotation {id} has image_id {image_id}, which is not one of its images")
    if category_id not in names:
      raise UserError(f"{source}: annotation {id} has category_id {category_id}, which is not one of its categories")
    pictures[image_id].boxes.append(_box(source, id, names[category_id], annotation))
  return Annotations(folder, list(pictures.values()), categories)


def _load(source: str, path: str) -> dict[str, list[dict]]:
  def without_outlines(value: dict) -> dict:
    value.pop("segmentation", None)  # most of the file, and of the memory that it would take
    return value

  try:
    with open(path, "rb") as file:
      content = json.load(file, object_hook=without_outlines)
  except OSError as error:
    raise UserError(f"{source} cannot be read: {error.strerror}") from None
  except (ValueError, RecursionError) as error:
    raise UserError(f"{source} is cut short or not JSON ({error}); get an intact copy") from None
  for key in _LISTS:
    values = content.get(key) if isinstance(content, dict) else None
    if not (isinstance(values, list) and all(isinstance(value, dict) for value in values)):
      raise UserError(
        f"{source} is not in COCO's format: it has no list of objects {key!r}; give one like instances_train2017.json,"
        f" which has {', '.join(_LISTS)}"
      )
  return content


def _folder(path: str) -> str:
  above, name = os.path.split(os.path.abspath(path))
  stem = os.path.splitext(name)[0].removeprefix("instances_")
  like_coco = os.path.join(os.path.dirname(above), stem)
  return like_coco if os.path.basename(above) == "annotations" and os.path.isdir(like_coco) else above


def _categories(source: str, values: list[dict]) -> dict[str, int]:
  """Name -> id, in the order of ids."""
  names = {}
  for category in values:
    id = _whole(source, "categories", category, "id")
    if not category.get("name"):
      raise UserError(f"{source}: category {id} has no name; give it one")
    name = _text(source, f"category {id}", category, "name")
    if id in names or name in names.values():
      raise UserError(f"{source} has two categories with the id {id} or the name {name!r}; each must be unique")
    names[id] = name
  return {names[id]: id for id in sorted(names)}


def _box(source: str, id: int, category: str, annotation: dict) -> Box:
  numbers = annotation.get("bbox")
  if not (isinstance(numbers, list) and len(numbers) == 4 and all(map(_is_number, numbers))):
    raise UserError(f"{source}: annotation {id} has bbox {numbers!r:.60}, not [x, y, width, height] in pixels")
  try:
    x, y, width, height = map(float, numbers)
  except OverflowError:  # a whole number too large for a float
    raise UserError(f"{source}: annotation {id} has bbox {numbers!r:.60}, whose numbers are too large") from None
  area = annotation.get("area")
  if area is not None and not (_is_number(area) and 0 <= area < 2**63):
    raise UserError(f"{source}: annotation {id} has area {area!r:.60}, not a number of pixels")
  crowd = annotation.get("iscrowd")
  if crowd not in (0, 1, None):
    raise UserError(f"{source}: annotation {id} has iscrowd {crowd!r:.60}, which must be 0 or 1")
  return Box(id, category, y, x, y + height, x + width, area, is_crowd=bool(crowd))


def _is_number(value) -> bool:
  return isinstance(value, int | float) and -math.inf < value < math.inf


def _whole(source: str, what: str, entry: dict, key: str, default=None) -> int:
  """A whole number of an entry; `what` names the entry or its list."""
  value = entry.get(key)
  if value is None and default is not None:
    return default
  if type(value) is not int or abs(value) >= 2**63:
    raise UserError(f"{source}: {what} has {key} {value!r:.60}, which must be a whole number")
  return value


def _text(source: str, what: str, entry: dict, key: str) -> str:
  value = entry.get(key)
  if not isinstance(value, str) or not value or not value.isprintable():
    raise UserError(f"{source}: {what} has {key} {value!r:.60}, which must be text on one line")
  return value
