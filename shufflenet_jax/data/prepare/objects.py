"""Datasets of pictures with boxes, from COCO's or Pascal VOC's annotations, with the features of TFDS's `coco/2017`."""

import dataclasses
import hashlib
import json
import os
import stat
import types
from collections import Counter
from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds

from shufflenet_jax.data.listing import printable
from shufflenet_jax.data.picture_formats import PictureError
from shufflenet_jax.data.prepare import coco, recode, voc
from shufflenet_jax.data.prepare.annotations import AnnotatedPicture, Annotations, fit
from shufflenet_jax.data.prepare.options import Options
from shufflenet_jax.data.prepare.source import Contents, Picture, Source, check_names, check_same_in_both
from shufflenet_jax.errors import UserError

CATEGORIES = "categories.json"  # in the dataset's folder: COCO's id and the name of each label


@dataclasses.dataclass(frozen=True)
class _Form:
  """A form of annotations: the module that reads it, and what a box with `is_crowd` is called in it."""

  name: str
  reader: types.ModuleType
  crowds: str


_FORMS = {".json": _Form("COCO", coco, "crowds"), ".txt": _Form("Pascal VOC", voc, "difficult")}


@dataclasses.dataclass(frozen=True)
class BoxSource(Source):
  """The pictures of one split, each labelled with its `AnnotatedPicture`.

  Attributes:
    categories: name -> COCO's category id, in the order of ids; {} if there are no ids.
  """

  categories: dict[str, int]

  def num_boxes(self) -> Counter:
    """Category -> its number of boxes."""
    return Counter(box.category for picture in self.pictures for box in picture.label.boxes)


def are_wanted(options: Options) -> bool:
  """Whether --train and --validation are files of annotations.

  Raises:
    UserError: they come in different forms, or a flag is useless without annotations.
  """
  forms = [_form(getattr(options, split)) for split in ("train", "validation")]
  if forms[0] != forms[1]:
    train, validation = (form.name if form else "pictures in class folders" for form in forms)
    raise UserError(
      f"--train={options.train} is taken for {train}, --validation={options.validation} for {validation}; give both in"
      " the same form: COCO's .json, Pascal VOC's .txt, or class folders"
    )
  if not forms[0]:
    for flag in ("train_pictures", "validation_pictures"):
      if getattr(options, flag):
        raise UserError(
          f"--{flag} needs annotations, COCO's .json or Pascal VOC's .txt; --train={options.train} is not"
        )
  elif options.name == "imagenet2012":
    raise UserError("--name=imagenet2012 names pictures with classes, not with boxes; choose another")
  return forms[0] is not None


def _form(path: str) -> _Form | None:
  return None if os.path.isdir(os.path.expanduser(path)) else _FORMS.get(os.path.splitext(path)[1].lower())


def open_source(options: Options, split: str, progress: Callable[[int], None]) -> BoxSource:
  """Reads the annotations of a split and the headers of its pictures.

  Args:
    options: `split` and `split`_pictures are used, and `upright`.
    split: train or validation.
    progress: called at intervals with the number of pictures seen.

  Raises:
    UserError: the annotations are absent or wrong, a picture is absent or has another size, a box lies outside its
      picture, a picture has too many boxes, or there are none at all, or only crowds or difficult ones.
  """
  path, folder = (getattr(options, flag) and os.path.expanduser(getattr(options, flag)) for flag in (
    split, f"{split}_pictures"
  ))  # fmt: skip
  form, source = _form(path), f"--{split}={path}"
  if not os.path.exists(path):
    raise UserError(f"{source} does not exist; give COCO's annotations (.json) or a list of Pascal VOC's (.txt)")
  annotations = form.reader.read(source, path, folder)
  _check_pictures(source, split, annotations)
  pictures, counts = [], Counter()
  for number, (annotated, size) in enumerate(zip(annotations.pictures, _file_sizes(source, split, annotations))):
    if number % 1000 == 0:
      progress(number)
    annotated, of_picture = _fit_to_file(annotated, options.upright, source)
    counts.update(of_picture)
    pictures.append(Picture(annotated.name, annotated, annotated.path, 0, size))
  boxes = [box for picture in pictures for box in picture.label.boxes]
  if all(box.is_crowd for box in boxes):
    only = f" that are not {form.crowds}" if boxes else ""
    raise UserError(f"{source} has no boxes{only}; a detector cannot be trained or evaluated without any")
  check_names(f"{source}: category", sorted({box.category for box in boxes} | set(annotations.categories)))
  counts["crowds"] = sum(box.is_crowd for box in boxes)
  counts["empty"] = sum(not picture.label.boxes for picture in pictures)
  return BoxSource(
    path=path,
    kind=form.name,
    pictures=sorted(pictures, key=lambda p: p.name),
    note=_note(split, len(boxes), counts, form.crowds),
    categories=annotations.categories,
  )


def contents(options: Options, sources: dict[str, BoxSource]) -> Contents:
  """What the dataset of these sources holds.

  Raises:
    UserError: the categories of the splits differ.
  """
  del options
  categories = _common_categories(**sources)
  names = list(categories) or sorted({name for source in sources.values() for name in source.num_boxes()})
  labels = {name: label for label, name in enumerate(names)}

  def to_example(picture: Picture, encoded: bytes) -> dict:
    return _example(picture.label, encoded, labels)

  table = [{"label": labels[name], "id": id, "name": name} for name, id in categories.items()]
  digest = hashlib.sha256(json.dumps(table or names).encode()).hexdigest()
  return Contents(
    title=f"Pictures with boxes of {len(names):,} classes",
    num_classes=len(names),
    features=_features(names),
    supervised_keys=None,
    homepage="",
    to_example=to_example,
    describe=_describe,
    plan={"categories": f"{len(names)}, sha256 {digest}"},
    files={CATEGORIES: json.dumps(table, indent=2).encode()} if table else {},
    config="configs/boxes.py",
  )


def _check_pictures(source: str, split: str, annotations: Annotations) -> None:
  """Raises a UserError if there are no pictures, their folder is absent, or one comes twice."""
  if not annotations.pictures:
    raise UserError(f"{source} has no pictures")
  if not os.path.isdir(annotations.folder):
    raise UserError(f"{source}: there is no folder {annotations.folder}; name it with --{split}_pictures=DIR")
  [(name, count)] = Counter(picture.name for picture in annotations.pictures).most_common(1)
  if count > 1:
    raise UserError(f"{source} has the picture {printable(name)} {count} times; merge its annotations")


def _file_sizes(source: str, split: str, annotations: Annotations) -> list[int]:
  """Bytes of each picture's file; raises a UserError if some are absent."""
  sizes, missing = [], []
  for picture in annotations.pictures:
    try:
      status = os.stat(picture.path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
      status = None
    if status and stat.S_ISREG(status.st_mode):
      sizes.append(status.st_size)
    else:
      missing.append(picture.name)
  if missing:
    raise UserError(
      f"{source} has {len(sizes) + len(missing):,} pictures, {len(missing):,} of them are not in {annotations.folder},"
      f" {printable(missing[0])} first; add them, or name another folder with --{split}_pictures=DIR"
    )
  return sizes


def _fit_to_file(picture: AnnotatedPicture, upright: bool, source: str) -> tuple[AnnotatedPicture, Counter]:
  """`fit`, by the file's header; if that cannot be read, the picture has size 0 and is reported when it is decoded."""
  try:
    size = recode.read_size(picture.path, upright)
  except PictureError:
    return dataclasses.replace(picture, width=0, height=0), Counter()
  except OSError as error:
    raise UserError(f"{source}: {printable(picture.path)} cannot be read: {error.strerror}") from None
  return fit(picture, size, source)


def _note(split: str, num_boxes: int, counts: Counter, crowds: str) -> str:
  text = f"--{split}: {num_boxes:,} boxes, {counts['crowds']:,} of them {crowds}"
  if counts["empty"]:
    text += f"; pictures without boxes: {counts['empty']:,}"
  if counts["dropped"]:
    text += f"; boxes of no size, left out: {counts['dropped']:,}"
  if counts["clipped"]:
    text += f"; boxes that stick out, clipped to their picture: {counts['clipped']:,}"
  return text


def _common_categories(train: BoxSource, validation: BoxSource) -> dict[str, int]:
  """The categories of both splits; raises a UserError if they differ."""

  def only_in(one: BoxSource, other: BoxSource) -> list[str]:
    return [f"{name} (id {id})" for name, id in one.categories.items() if (name, id) not in other.categories.items()]

  check_same_in_both("categories", training=only_in(train, validation), validation=only_in(validation, train))
  return train.categories


def _features(names: list[str]) -> tfds.features.FeaturesDict:
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(),
      "image/filename": tfds.features.Text(),
      "image/id": np.int64,
      "objects": tfds.features.Sequence(
        {
          "area": np.int64,
          "bbox": tfds.features.BBoxFeature(),
          "id": np.int64,
          "is_crowd": np.bool_,
          "label": tfds.features.ClassLabel(names=names),
        }
      ),
    }
  )


def _example(picture: AnnotatedPicture, encoded: bytes, labels: dict[str, int]) -> dict:
  width, height = picture.width, picture.height
  if not width or not height:
    raise PictureError("its size cannot be read")
  objects = [
    {
      "area": int(box.area),  # rounded down, as by TFDS
      "bbox": tfds.features.BBox(box.ymin / height, box.xmin / width, box.ymax / height, box.xmax / width),
      "id": box.id,
      "is_crowd": box.is_crowd,
      "label": labels[box.category],
    }
    for box in picture.boxes
  ]
  name = os.fsencode(picture.name)
  return {"image": encoded, "image/filename": name, "image/id": picture.image_id, "objects": objects}


def _describe(source: BoxSource) -> str:
  num_boxes = source.num_boxes()
  return f"{num_boxes.total():,} boxes of {len(num_boxes):,} classes"
