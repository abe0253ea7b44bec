"""Anchors: the boxes of fixed sizes and aspect ratios at each position of the map, from which proposals are made."""

import jax
import jax.numpy as jnp
import numpy as np

from shufflenet_jax.models.boxes import unstack
from shufflenet_jax.models.faster_rcnn import STRIDE
from shufflenet_jax.tasks.detection.settings import Settings


def grid(height: int, width: int, settings: Settings) -> np.ndarray:
  """The anchors of a canvas, ordered by row, column, size and ratio, as the outputs of `FasterRCNN.propose`.

  They are centred in their cells, as Caffe's are: the first at (8, 8).

  Args:
    height, width: of the canvas, pixels.
    settings: `anchor_sizes` and `anchor_ratios` are used.

  Returns:
    float32 (ceil(height/16) * ceil(width/16) * sizes * ratios, 4), in pixels of the canvas.
  """
  ratio = np.sqrt(np.asarray(settings.anchor_ratios))
  sizes = np.asarray(settings.anchor_sizes)[:, None]
  heights, widths = (sizes * ratio).ravel(), (sizes / ratio).ravel()  # (sizes, ratios) -> (sizes*ratios,)
  y = (np.arange(-(-height // STRIDE)) + 0.5)[:, None, None] * STRIDE
  x = (np.arange(-(-width // STRIDE)) + 0.5)[None, :, None] * STRIDE
  corners = np.broadcast_arrays(y - heights / 2, x - widths / 2, y + heights / 2, x + widths / 2)
  return np.stack(corners, axis=-1).reshape(-1, 4).astype(np.float32)  # (h, w, sizes*ratios, 4) -> (a, 4)


def centred_inside(anchors: jax.Array, size: jax.Array) -> jax.Array:
  """Whether the centre of each anchor is in the picture, not in the padding: (a, 4), (height, width) -> bool (a,)."""
  ymin, xmin, ymax, xmax = unstack(anchors)
  return (ymin + ymax < 2 * size[0]) & (xmin + xmax < 2 * size[1])


def trained(anchors: jax.Array, size: jax.Array, settings: Settings) -> jax.Array:
  """Whether each anchor takes part in training: it may extend beyond the picture by `max_anchor_overhang` at most.

  Args:
    anchors: (a, 4).
    size: float32 (2,), the picture's true height and width on the canvas.
    settings: `max_anchor_overhang` is used.

  Returns:
    bool (a,).
  """
  ymin, xmin, ymax, xmax = unstack(anchors)
  beyond = jnp.maximum(jnp.maximum(-ymin, -xmin), jnp.maximum(ymax - size[0], xmax - size[1]))
  return centred_inside(anchors, size) & (beyond <= settings.max_anchor_overhang)
