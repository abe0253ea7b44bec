"""RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3) as two matrix products, without gathers.

Bilinear interpolation is separable: the weight of a cell of the map is the product of a weight of its row and one of
its column. So are the averages over the sampling points of a bin. A crop therefore is `rows @ map @ columns`, with
small matrices of weights that a TPU computes faster than it gathers cells.
"""

import jax
import jax.numpy as jnp


def roi_align(features: jax.Array, rois: jax.Array, crop: int, samples: int = 2) -> jax.Array:
  """Crops of a map, resampled to crop x crop bins.

  The same as torchvision's `roi_align` with `aligned=True`: the centre of cell i is at i + 0.5, each bin is the
  average of samples x samples points, points up to one cell outside the map get the value at its border, and points
  further out count as 0. Differentiable with respect to the map; with respect to the boxes, the gradient is 0.

  Args:
    features: (n, h, w, c), any float dtype, in which the products are computed.
    rois: float32 (n, r, 4), (ymin, xmin, ymax, xmax) in cells of the map.
    crop: bins along each side.
    samples: points along each side of a bin.

  Returns:
    (n, r, crop, crop, c), the dtype of `features`.
  """
  _, h, w, _ = features.shape
  ymin, xmin, ymax, xmax = (jax.lax.stop_gradient(rois)[..., i] for i in range(4))
  with jax.named_scope("roi_align"):
    rows = interpolation_weights(ymin, ymax, h, crop, samples).astype(features.dtype)
    columns = interpolation_weights(xmin, xmax, w, crop, samples).astype(features.dtype)
    x = jnp.einsum("nrih,nhwc->nriwc", rows, features)
    return jnp.einsum("nrjw,nriwc->nrijc", columns, x)


def interpolation_weights(begin: jax.Array, end: jax.Array, cells: int, bins: int, samples: int) -> jax.Array:
  """The weight of each cell of an axis in each bin of an interval of that axis.

  Args:
    begin, end: float32 (...), in cells.
    cells: length of the axis.
    bins: number of bins that the interval is divided into.
    samples: points per bin, which are spread evenly and averaged.

  Returns:
    float32 (..., bins, cells). A row adds up to 1, or less where points are more than one cell outside the axis.
  """
  shape = (*begin.shape, bins, samples)
  fraction = ((jnp.arange(bins * samples, dtype=jnp.float32) + 0.5) / (bins * samples)).reshape(bins, samples)
  fraction = jax.lax.broadcast_in_dim(fraction, shape, (begin.ndim, begin.ndim + 1))
  begin, length = (jnp.expand_dims(x, (-2, -1)) for x in (begin, end - begin))  # (...) -> (..., 1, 1)
  points = begin + fraction * length - 0.5  # the centre of cell i is at i from here on
  inside = (points >= -1) & (points <= cells)
  points = jnp.clip(points, 0, cells - 1)
  at = jax.lax.broadcast_in_dim(jnp.arange(cells, dtype=jnp.float32), (*shape, cells), (len(shape),))
  weights = jnp.maximum(1 - jnp.abs(points[..., None] - at), 0)  # (..., bins, samples, cells)
  return jnp.where(inside[..., None], weights, 0).mean(axis=-2)
