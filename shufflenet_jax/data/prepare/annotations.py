"""Pictures with boxes as plain records, whatever file they come from; and which boxes are kept, clipped or refused."""

import dataclasses
import json
import typing
from collections import Counter

from shufflenet_jax.data.listing import printable
from shufflenet_jax.data.max_boxes import MAX_BOXES
from shufflenet_jax.errors import UserError


class Box(typing.NamedTuple):
  """One object. Coordinates are pixels from the top left corner of the picture, and xmax - xmin is the width.

  Attributes:
    area: square pixels, of the object's outline; None: that of the box.
    is_crowd: whether it is neither a single object nor background, so that training and evaluation leave it out.
  """

  id: int
  category: str
  ymin: float
  xmin: float
  ymax: float
  xmax: float
  area: float | None
  is_crowd: bool


@dataclasses.dataclass(frozen=True, slots=True)
class AnnotatedPicture:
  """A picture and its boxes.

  Attributes:
    name: of its file.
    path: of its file.
    width: pixels; 0 if unknown.
    height: pixels; 0 if unknown.
    image_id: unique within the split.
    boxes: in the order of the annotations.
  """

  name: str
  path: str
  width: int
  height: int
  image_id: int
  boxes: list[Box]

  def __str__(self) -> str:
    """All that goes into the dataset, for the plan."""
    return json.dumps([self.image_id, self.width, self.height, self.boxes])


class Annotations(typing.NamedTuple):
  """What a file of annotations holds.

  Attributes:
    folder: where its pictures are.
    pictures: in the order of the file.
    categories: name -> COCO's category id, in the order of ids; {} if there are no ids.
  """

  folder: str
  pictures: list[AnnotatedPicture]
  categories: dict[str, int]


def fit(picture: AnnotatedPicture, size: tuple[int, int], source: str) -> tuple[AnnotatedPicture, Counter]:
  """Fits boxes into their picture: drops those of no size, and clips those that stick out of it.

  Args:
    picture: as annotated.
    size: the true (width, height) in pixels.
    source: for messages, for instance `--train=instances_train.json`.

  Returns:
    The picture with its true size and the boxes that are left, and how many were `dropped` and `clipped`.

  Raises:
    UserError: the annotated size is another one, a box lies outside the picture, or more than `MAX_BOXES` are left.
  """
  width, height = size
  name = printable(picture.name)
  if picture.width and picture.height and (picture.width, picture.height) != size:
    remedy = "correct the annotation"
    if (picture.height, picture.width) == size:
      remedy += "; or if an EXIF orientation turns the picture: --short_side=PIXELS --upright is for boxes of the"
      remedy += " upright picture, and without these flags they must be those of the picture as stored"
    raise UserError(
      f"{source} has {name} with {picture.width}x{picture.height} pixels, its file holds {width}x{height}; {remedy}"
    )
  boxes, counts = [], Counter()
  for box in picture.boxes:
    if box.xmax <= box.xmin or box.ymax <= box.ymin:
      counts["dropped"] += 1
      continue
    clipped = box._replace(
      ymin=max(box.ymin, 0.0), xmin=max(box.xmin, 0.0), ymax=min(box.ymax, height), xmax=min(box.xmax, width)
    )
    box_height, box_width = clipped.ymax - clipped.ymin, clipped.xmax - clipped.xmin
    if box_height <= 0 or box_width <= 0:
      raise UserError(
        f"{source}: the box of {box.category!r} in {name}, at x {box.xmin:g} to {box.xmax:g} and y {box.ymin:g} to"
        f" {box.ymax:g}, lies outside the picture of {width}x{height} pixels; correct or remove it"
      )
    counts["clipped"] += clipped != box
    boxes.append(clipped._replace(area=box_height * box_width) if box.area is None else clipped)
  if len(boxes) > MAX_BOXES:
    raise UserError(
      f"{source} has {len(boxes)} boxes in {name}, at most {MAX_BOXES} are supported; divide the picture, or remove"
      " boxes"
    )
  return dataclasses.replace(picture, width=width, height=height, boxes=boxes), counts
