"""The four losses of Faster R-CNN, for one picture: sums over its samples, divided by its own number of samples."""

import jax
import jax.numpy as jnp
import optax

from shufflenet_jax.models import boxes as box_ops
from shufflenet_jax.tasks.detection import matching, sampling
from shufflenet_jax.tasks.detection.matching import Targets
from shufflenet_jax.tasks.detection.settings import Settings


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
  """x^2 / (2 beta) for |x| < beta, otherwise |x| - beta / 2. With beta=1, it is the Huber loss."""
  size = jnp.abs(difference)
  return jnp.where(size < beta, jnp.square(difference) / (2 * beta), size - beta / 2)


def rpn_losses(
  objectness: jax.Array,
  deltas: jax.Array,
  anchors: jax.Array,
  trained: jax.Array,
  targets: Targets,
  key: jax.Array,
  settings: Settings,
) -> tuple[jax.Array, jax.Array]:
  """Sigmoid cross-entropy of the sampled anchors, and smooth L1 of the deltas of the positive ones.

  Args:
    objectness: float32 (a,), logits.
    deltas: float32 (a, 4).
    anchors: (a, 4).
    trained: bool (a,); see `anchors.trained`.
    targets: of the picture.
    key: of the sample.
    settings: the `rpn_` fields and `crowd_ioa` are used.

  Returns:
    (rpn_class, rpn_box), float32 scalars, both divided by the number of sampled anchors, as in torchvision.
  """
  matches = matching.match_anchors(anchors, trained, targets, settings)
  most = int(settings.rpn_samples * settings.rpn_positive_share)
  positive, negative = sampling.sample_masks(key, matches.positive, matches.negative, settings.rpn_samples, most)
  sampled = positive | negative
  number = jnp.maximum(sampled.sum(dtype=jnp.int32), 1).astype(jnp.float32)
  cross_entropy = optax.sigmoid_binary_cross_entropy(objectness, positive.astype(jnp.float32))
  wanted = box_ops.encode(matching.matched_boxes(matches, targets), anchors)
  box = jnp.where(positive[:, None], smooth_l1(deltas - wanted, settings.rpn_box_beta), 0)
  return jnp.where(sampled, cross_entropy, 0).sum() / number, box.sum() / number


def sample_regions(
  proposals: jax.Array, valid: jax.Array, targets: Targets, key: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The regions to train the head with, drawn from the proposals and the objects themselves.

  Args:
    proposals: float32 (p, 4).
    valid: bool (p,).
    targets: of the picture.
    key: of the sample.
    settings: the `roi_` fields and `crowd_ioa` are used.

  Returns:
    rois float32 (roi_samples, 4); label int32 (roi_samples,), -1 for the background and -2 for padding; the boxes
    of their objects, float32 (roi_samples, 4).
  """
  proposals = jnp.concatenate([proposals, targets.boxes])
  valid = jnp.concatenate([valid, matching.objects(targets)])
  matches = matching.match_proposals(proposals, valid, targets, settings)
  most = int(settings.roi_samples * settings.roi_foreground_share)
  index, positive, sampled = sampling.sample(key, matches.positive, matches.negative, settings.roi_samples, most)
  of_object = matches.object[index]
  label = jnp.where(positive, targets.label[of_object], jnp.where(sampled, -1, -2))
  return jnp.where(sampled[:, None], proposals[index], 0), label, targets.boxes[of_object]


def head_losses(
  logits: jax.Array, deltas: jax.Array, rois: jax.Array, label: jax.Array, boxes: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
  """Softmax cross-entropy of the sampled regions, and smooth L1 of the deltas of the foreground's own classes.

  Args:
    logits: float32 (r, num_classes + 1), the background last.
    deltas: float32 (r, num_classes, 4).
    rois, label, boxes: see `sample_regions`.
    settings: `roi_box_beta` and `box_weights` are used.

  Returns:
    (head_class, head_box), float32 scalars, both divided by the number of sampled regions, as in torchvision.
  """
  num_classes = deltas.shape[1]
  number = jnp.maximum((label > -2).sum(dtype=jnp.int32), 1).astype(jnp.float32)
  wanted_class = jnp.where(label >= 0, label, num_classes)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, wanted_class)
  of_class = jax.nn.one_hot(label, num_classes, dtype=jnp.float32)[..., None]  # zeros where the label is negative
  wanted = box_ops.encode(boxes, rois, settings.box_weights)
  own = (deltas * of_class).sum(axis=1)  # (r, num_classes, 4) -> (r, 4)
  box = jnp.where((label >= 0)[:, None], smooth_l1(own - wanted, settings.roi_box_beta), 0)
  return jnp.where(label > -2, cross_entropy, 0).sum() / number, box.sum() / number
