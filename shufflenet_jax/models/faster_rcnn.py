"""Faster R-CNN (arXiv 1506.01497) on a classification network: the detector of section 4.4 and Table 7.

The paper does not say how the detector is wired. The stages up to stride 16 and the region proposal network run on the
picture, and the last stage runs on crops of the map, which is how Faster R-CNN was first applied to residual networks
(arXiv 1512.03385, appendix A). With MobileNet, this wiring gives the multiply-adds and parameters that MobileNet's
paper reports for its Faster R-CNN (arXiv 1704.04861, Table 13), within 1 %.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models.roi_align import roi_align

# Pixels of the canvas per cell of the map that proposals are made from.
STRIDE = 16


class Proposed(NamedTuple):
  """What the region proposal network computes for a batch; `a` counts the anchors of a picture.

  Attributes:
    features: (n, h/16, w/16, c), the map of "stage3", in the backbone's dtype.
    objectness: float32 (n, a), logits. Anchors are ordered by row, column, size and aspect ratio.
    deltas: float32 (n, a, 4), from anchors to proposals; see `boxes.decode`.
  """

  features: jax.Array
  objectness: jax.Array
  deltas: jax.Array


class Recognised(NamedTuple):
  """What the head computes for regions of interest.

  Attributes:
    logits: float32 (n, r, num_classes + 1); the background is the last class, so that the others keep their labels.
    deltas: float32 (n, r, num_classes, 4), for each class from a region to the object's box; see `boxes.decode`.
  """

  logits: jax.Array
  deltas: jax.Array


class RegionProposals(nn.Module):
  """The region proposal network: a 3x3 convolution, then objectness and deltas for each anchor of each position.

  All kernels are initialised with a normal distribution of standard deviation 0.01, as in the paper of Faster R-CNN.

  Attributes:
    anchors: per position.
    channels: of the 3x3 convolution.
    dtype: compute dtype.
  """

  anchors: int
  channels: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(n, h, w, c) -> objectness (n, h * w * anchors) and deltas (n, h * w * anchors, 4), float32."""
    init, (n, h, w, _), a = nn.initializers.normal(0.01), x.shape, self.anchors
    x = nn.relu(nn.Conv(self.channels, (3, 3), padding=1, dtype=self.dtype, kernel_init=init, name="conv")(x))
    objectness = nn.Conv(a, (1, 1), dtype=self.dtype, kernel_init=init, name="objectness")(x)
    deltas = nn.Conv(4 * a, (1, 1), dtype=self.dtype, kernel_init=init, name="deltas")(x)
    objectness = objectness.astype(jnp.float32).reshape(n, h * w * a)  # (n, h, w, a) -> (n, h*w*a)
    return objectness, deltas.astype(jnp.float32).reshape(n, h * w * a, 4)  # (n, h, w, a*4) -> (n, h*w*a, 4)


class BoxHead(nn.Module):
  """Two dense layers on the pooled features of a region: its class, and a box for each class.

  Kernels are initialised with normal distributions of standard deviation 0.01 (`classes`) and 0.001 (`deltas`), as in
  Fast R-CNN (arXiv 1504.08083, section 2.3).

  Attributes:
    num_classes: without the background.
    dtype: compute dtype.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(regions, c) -> logits (regions, num_classes + 1) and deltas (regions, num_classes, 4), float32."""
    normal, k = nn.initializers.normal, self.num_classes
    logits = nn.Dense(k + 1, dtype=self.dtype, kernel_init=normal(0.01), name="classes")(x)
    deltas = nn.Dense(4 * k, dtype=self.dtype, kernel_init=normal(0.001), name="deltas")(x)
    # (regions, k*4) -> (regions, k, 4)
    return logits.astype(jnp.float32), deltas.astype(jnp.float32).reshape(-1, k, 4)


class FasterRCNN(nn.Module):
  """Faster R-CNN. `propose` and `recognise` are its two networks; `tasks.detection` connects, trains and uses them.

  The parameters are the backbone's, under their usual names and without its classifier, plus `rpn` and `box_head`. So a
  classification checkpoint without its `classifier` has exactly the parameters other than these two. Batch norm uses
  its running statistics unless `train` is set; its scales and biases are trained in either case.

      model = FasterRCNN(ShuffleNetV1(groups=3), num_classes=80)
      variables = model.init(key, images)
      proposed = model.apply(variables, images, method="propose")
      recognised = model.apply(variables, proposed.features, rois, method="recognise")

  Attributes:
    backbone: a network with `features(images, train, after=..., until=...)`, such as `ShuffleNetV1` or `MobileNetV1`.
      All layers compute in its dtype.
    num_classes: without the background.
    anchors: per position; sizes times aspect ratios.
    rpn_channels: of the 3x3 convolution of the region proposal network.
    crop: side of a region's crop of the map, in cells. The last stage has stride 2, so 14 becomes 7; 7 becomes 4, and
      then the head takes a quarter of the time.
    test_proposals: regions per picture in inference, which `__call__` computes.
  """

  backbone: nn.Module
  num_classes: int
  anchors: int = 12
  rpn_channels: int = 512
  crop: int = 14
  test_proposals: int = 300

  def setup(self):
    nn.share_scope(self, self.backbone)  # the backbone's parameters are at the top level
    dtype = self.backbone.dtype
    self.rpn = RegionProposals(self.anchors, self.rpn_channels, dtype=dtype)
    self.box_head = BoxHead(self.num_classes, dtype=dtype)

  def propose(self, images: jax.Array, train: bool = False) -> Proposed:
    """The map and the region proposal network: images float32 (n, h, w, 3), normalised -> `Proposed`.

    With `train`, batch norm uses the statistics of these images, and `batch_stats` must be mutable.
    """
    with jax.named_scope("body"):
      features = self.backbone.features(images, train, until="stage3")["stage3"]
    return Proposed(features, *self.rpn(features))

  def recognise(self, features: jax.Array, rois: jax.Array, train: bool = False) -> Recognised:
    """The last stage on crops, global pooling and the head.

    Args:
      features: of `Proposed`.
      rois: float32 (n, r, 4), boxes in pixels of the canvas. No gradient flows into them.
      train: see `propose`; the statistics are those of all crops.
    """
    n, r, _ = rois.shape
    with jax.named_scope("head"):
      crops = roi_align(features, rois / STRIDE, self.crop)
      crops = crops.reshape(n * r, *crops.shape[2:])  # (n, r, crop, crop, c) -> (n*r, crop, crop, c)
      x = self.backbone.features(crops, train, after="stage3")["stage4"].mean(axis=(1, 2))  # (n*r, h, w, c) -> (n*r, c)
      logits, deltas = self.box_head(x)
    # (n*r, ...) -> (n, r, ...)
    return Recognised(logits.reshape(n, r, *logits.shape[1:]), deltas.reshape(n, r, *deltas.shape[1:]))

  def __call__(self, images: jax.Array) -> tuple[Proposed, Recognised]:
    """Runs both networks on `test_proposals` regions, each the whole canvas; only for initialising and counting."""
    n, h, w, _ = images.shape
    proposed = self.propose(images)
    canvas = jnp.asarray([0, 0, h, w], jnp.float32)
    rois = jax.lax.broadcast_in_dim(canvas, (n, self.test_proposals, 4), (2,))
    return proposed, self.recognise(proposed.features, rois)
