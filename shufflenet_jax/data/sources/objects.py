"""TFDS datasets of pictures with boxes: `coco/2017`, `voc/*`, and what `data.prepare` makes of boxes."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets

from shufflenet_jax.data import pictures, sources
from shufflenet_jax.data.max_boxes import MAX_BOXES
from shufflenet_jax.data.sources import tfds
from shufflenet_jax.data.split import Split
from shufflenet_jax.errors import UserError

_CROWD_KEYS = ("is_crowd", "is_difficult")  # COCO's and VOC's


def open_objects(data, split: str, num_classes: int, class_names: Sequence[str] = ()) -> Split:
  """Opens a split of a prepared dataset with boxes; downloads nothing.

  `parse` of the split gives (encoded image, targets), where the targets are, for b = `MAX_BOXES` = 100:

    boxes     float32 (b, 4): ymin, xmin, ymax, xmax, as fractions of the picture's height and width; 0 in padding
    label     int32 (b,): -1 in padding
    crowd     bool (b,): marks crowds (COCO) and difficult objects (VOC), which are neither objects nor background
    area      float32 (b,): square pixels, as the dataset has it (the outline's area in COCO, before any shrinking by
              `data.prepare`); where it has none, that of the box in the stored picture; 0 in padding
    image_id  int64: the dataset's; where it has none, a hash of the file's name or else of the file
    num_boxes int32: how many boxes the picture has. If it is above b, those after the first b are lost, and the caller
              must refuse the example; `explain` then names the picture.

  Boxes are clipped to the picture, and those of no size are dropped. Padding comes last. All objects keep their order.

  Args:
    data: the config's `data` section: `name` is that of a TFDS dataset in `data_dir` ("": TFDS's default folder).
    split: a TFDS split expression.
    num_classes: classes of the detector, without background.
    class_names: the detector's, if known; the dataset's must be the same.

  Raises:
    UserError: the dataset or split is absent, empty, in another file format or without boxes, or its classes are not
      the detector's.
  """
  if sources.base_name(data.name) in sources.SOURCES:
    raise UserError(f"dataset {data.name!r} has no boxes; a detector needs one with objects, as in coco/2017")
  builder = tfds.find_builder(data.name, tfds.datasets_folder(data.data_dir))
  features = builder.info.features
  if not has_objects(features):
    raise UserError(
      f"dataset {data.name!r} has no boxes: its features are {', '.join(sorted(features))}; it needs image, and objects"
      " that have bbox and label, as in coco/2017"
    )
  label = features["objects"].feature["label"]

  def deserialize(serialized):
    return features.deserialize_example(serialized, decoders={"image": tensorflow_datasets.decode.SkipDecoding()})

  def parse(serialized):
    example = deserialize(serialized)
    return example["image"], _targets(example)

  def explain(serialized):
    example = deserialize(serialized)
    count = len(_boxes(example["objects"])[1])
    if count <= MAX_BOXES:
      return ""
    name = example["image/filename"].numpy().decode(errors="replace") if "image/filename" in example else "a picture"
    return f"{name} has {count} boxes, at most {MAX_BOXES} are supported; leave it out, or divide the picture"

  return tfds.open_records(
    data.name, builder, split, label=label, num_classes=num_classes, class_names=class_names, parse=parse,
    explain=explain,
  )  # fmt: skip


def has_objects(features) -> bool:
  """Whether the features of a TFDS dataset are those of pictures with boxes, as `open_objects` reads them."""
  objects = dict(features.items()).get("objects")
  inner = getattr(objects, "feature", None)
  if not isinstance(objects, tensorflow_datasets.features.Sequence):
    return False
  if not isinstance(inner, tensorflow_datasets.features.FeaturesDict) or not {"bbox", "label"} <= set(inner):
    return False
  return (
    "image" in features
    and isinstance(features["image"], tensorflow_datasets.features.Image)
    and isinstance(inner["bbox"], tensorflow_datasets.features.BBoxFeature)
    and isinstance(inner["label"], tensorflow_datasets.features.ClassLabel)
  )


def _targets(example: dict) -> dict[str, tf.Tensor]:
  """The padded targets of an example, see `open_objects`."""
  objects = example["objects"]
  boxes, kept = _boxes(objects)
  crowd = next((objects[key] for key in _CROWD_KEYS if key in objects), tf.zeros_like(objects["label"], tf.bool))
  if "area" in objects:
    area = tf.cast(objects["area"], tf.float32)
  else:
    height, width = tf.unstack(tf.cast(_image_size(example["image"]), tf.float32))
    area = (boxes[:, 2] - boxes[:, 0]) * height * (boxes[:, 3] - boxes[:, 1]) * width

  def padded(values, fill=0):
    values = tf.gather(values, kept)[:MAX_BOXES]
    missing = [(0, MAX_BOXES - tf.shape(values)[0])] + [(0, 0)] * (values.shape.rank - 1)
    values = tf.pad(values, missing, constant_values=tf.cast(fill, values.dtype))
    return tf.ensure_shape(values, (MAX_BOXES, *values.shape[1:]))

  return {
    "boxes": padded(boxes),
    "label": padded(tf.cast(objects["label"], tf.int32), -1),
    "crowd": padded(tf.cast(crowd, tf.bool), False),
    "area": padded(area),
    "image_id": _image_id(example),
    "num_boxes": tf.size(kept, tf.int32),
  }


def _boxes(objects: dict) -> tuple[tf.Tensor, tf.Tensor]:
  """All boxes, clipped to the picture: float32 (n, 4); and the indices of those that have a size: int64 (kept,)."""
  boxes = tf.clip_by_value(tf.reshape(objects["bbox"], (-1, 4)), 0.0, 1.0)
  return boxes, tf.where(tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1))[:, 0]


def _image_size(encoded: tf.Tensor) -> tf.Tensor:
  """int32 (2,): height and width of an encoded picture."""
  return tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.extract_jpeg_shape(encoded)[:2],
    lambda: tf.shape(pictures.decode(encoded))[:2],
  )


def _image_id(example: dict) -> tf.Tensor:
  if "image/id" in example:
    return tf.cast(example["image/id"], tf.int64)
  return tf.strings.to_hash_bucket_fast(example.get("image/filename", example["image"]), np.iinfo(np.int64).max)
