"""Pictures with objects for the tests of detection, and a small detector."""

import jax
import jax.numpy as jnp
import numpy as np

from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.models.shufflenet import ShuffleNetV1
from shufflenet_jax.tasks.detection.matching import Targets
from shufflenet_jax.tasks.detection.settings import Settings

CANVAS = 64
CLASSES = 3
SETTINGS = Settings(
  anchor_sizes=(16.0, 32.0),
  rpn_samples=32,
  train_proposals=40,
  test_anchors=30,
  test_proposals=10,
  roi_samples=16,
  detections=12,
)


def detector() -> FasterRCNN:
  backbone = ShuffleNetV1(groups=3, scale=0.25, repeats=(1, 1, 1), lowering="dense")
  return FasterRCNN(backbone, CLASSES, anchors=6, rpn_channels=16, crop=4, test_proposals=10)


def variables():
  return jax.jit(detector().init)(jax.random.key(0), jnp.zeros((1, CANVAS, CANVAS, 3)))


def targets(boxes, label=None, crowd=None, size=(CANVAS, CANVAS), padded_to: int = 6) -> Targets:
  """One picture's targets from lists, padded."""
  count, missing = len(boxes), padded_to - len(boxes)
  label = range(count) if label is None else label
  crowd = [False] * count if crowd is None else crowd
  return Targets(
    boxes=jnp.asarray(np.asarray([*boxes, *[[0] * 4] * missing], np.float32)),
    label=jnp.asarray([*label, *[-1] * missing], jnp.int32),
    crowd=jnp.asarray([*crowd, *[False] * missing], bool),
    size=jnp.asarray(size, jnp.float32),
  )


def batch(*pictures: Targets) -> dict[str, jax.Array]:
  """Targets of several pictures as `objective.loss` takes them."""
  return jax.tree.map(lambda *x: jnp.stack(x), *pictures)._asdict()


def random_boxes(rng, count: int, extent: float = CANVAS) -> np.ndarray:
  corner = rng.uniform(0, 0.7 * extent, (count, 2))
  return np.concatenate([corner, corner + rng.uniform(4, extent / 2, (count, 2))], 1).astype(np.float32)


def overlaps_in_numpy(a, b):
  """(iou, ioa), each (p, q); 0 for boxes without an area."""
  begin, end = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
  common = np.clip(end - begin, 0, None).prod(-1)
  area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
  union = area_a[:, None] + area_b[None] - common
  return np.where(union > 0, common / np.maximum(union, 1e-9), 0), common / np.maximum(area_a[:, None], 1e-9)
