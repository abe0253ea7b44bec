"""The loss of a batch of pictures: approximate joint training of both networks (Faster R-CNN, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp

from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.tasks.detection import anchors as anchor_ops
from shufflenet_jax.tasks.detection import losses, proposals
from shufflenet_jax.tasks.detection.matching import Targets
from shufflenet_jax.tasks.detection.settings import Settings

# Names of what `loss` reports.
METRICS = ("loss", "rpn_class", "rpn_box", "head_class", "head_box")


def loss(
  model: FasterRCNN,
  params: Any,
  batch_stats: Any,
  images: jax.Array,
  targets: dict[str, jax.Array],
  keys: jax.Array,
  settings: Settings,
  updates_statistics: bool = False,
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
  """The sum of the four losses, averaged over the pictures.

  The random choices for a picture depend only on its key. Without `updates_statistics`, its losses depend only on the
  picture itself, not on the rest of the batch, so that the result is the same however the pictures are spread over
  devices.

  Args:
    model: its `anchors` must be `settings.anchors_per_position`.
    params: float32; the loss can be differentiated with respect to them.
    batch_stats: running statistics of batch norm.
    images: float32 (n, h, w, 3), normalised canvases.
    targets: the fields of `Targets`, with a leading axis n.
    keys: JAX keys (n,), of each example in this step.
    settings: of training.
    updates_statistics: whether batch norm uses the statistics of these pictures and their regions, and moves the
      running ones towards them; the padding of canvases and of the list of regions counts as well. Otherwise it uses
      the running ones, and they stay as they are.

  Returns:
    (float32 scalar, `batch_stats` after this batch or {} if they stay, the `METRICS`: float32 scalars).

  Raises:
    ValueError: a network with another number of anchors.
  """
  anchors = check_anchors(model, images, settings)
  targets = Targets(**targets)

  def apply(method, batch_stats, *arrays):
    variables = {"params": params, "batch_stats": batch_stats}
    if not updates_statistics:
      return model.apply(variables, *arrays, method=method), batch_stats
    outputs, updated = model.apply(variables, *arrays, train=True, method=method, mutable=["batch_stats"])
    return outputs, updated["batch_stats"]

  (features, objectness, deltas), batch_stats = apply("propose", batch_stats, images)
  boxes, valid = proposals.to_train(objectness, deltas, anchors, targets.size, settings)

  def first_stage(objectness, deltas, targets, boxes, valid, key):
    of_anchors, of_regions = jax.random.split(key)
    trained = anchor_ops.trained(anchors, targets.size, settings)
    rpn = losses.rpn_losses(objectness, deltas, anchors, trained, targets, of_anchors, settings)
    return rpn, losses.sample_regions(boxes, valid, targets, of_regions, settings)

  rpn, regions = jax.vmap(first_stage)(objectness, deltas, targets, boxes, valid, keys)
  recognised, batch_stats = apply("recognise", batch_stats, features, regions[0])
  head = jax.vmap(lambda *arrays: losses.head_losses(*arrays, settings))(*recognised, *regions)
  parts = dict(zip(METRICS[1:], (x.mean() for x in (*rpn, *head))))
  total = sum(parts.values())
  return total, batch_stats if updates_statistics else {}, {"loss": total, **parts}


def check_anchors(model: FasterRCNN, images: jax.Array, settings: Settings) -> jax.Array:
  """The anchors for a batch of canvases: float32 (a, 4).

  Raises:
    ValueError: the network has another number of anchors per position.
  """
  if model.anchors != settings.anchors_per_position:
    raise ValueError(
      f"the network has {model.anchors} anchors per position, but there are {len(settings.anchor_sizes)} sizes x"
      f" {len(settings.anchor_ratios)} ratios"
    )
  return jnp.asarray(anchor_ops.grid(*images.shape[1:3], settings))
