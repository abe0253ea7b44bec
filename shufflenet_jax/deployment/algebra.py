"""Makes layers, merging what can be merged: batch norms and ReLUs into convolutions, scalings into kernels.

Each function takes the layers that a network's own operation would take, and returns the simplest layers that compute
the same. So a network that is traced operation by operation becomes a graph without the batch norms that follow
convolutions. (A convolution whose output is used twice is then computed twice.)
"""

import dataclasses

import numpy as np

from shufflenet_jax.deployment.layers import (
  Add,
  Affine,
  AveragePool,
  Concat,
  Conv,
  Dense,
  Layer,
  Padding,
  Relu,
  Shuffle,
  never_negative,
  rebuilt,
)


def affine(x: Layer, scale: np.ndarray | float, offset: np.ndarray | float) -> Layer:
  """`scale * x + offset`, with one value for each channel or one for all."""
  channels = x.shape[-1:]
  scale = np.broadcast_to(np.asarray(scale, np.float64), channels)
  offset = np.broadcast_to(np.asarray(offset, np.float64), channels)
  if np.all(scale.astype(np.float32) == 1) and not offset.any():
    return x
  if isinstance(x, Affine):
    return affine(x.x, x.scale * scale, x.offset * scale + offset)
  if isinstance(x, Conv | Dense) and not x.relu:
    kernel = x.kernel if np.all(scale == 1) else x.kernel * scale
    return dataclasses.replace(x, kernel=kernel, bias=x.bias * scale + offset)
  if isinstance(
    x, Shuffle
  ):  # what acts on each channel by itself can as well be done before the channels are reordered
    before = np.argsort(shuffled(np.arange(x.shape[-1]), x.groups))
    return shuffle(affine(x.x, scale[before], offset[before]), x.groups)
  return Affine((x,), x.shape, scale, offset)


def relu(x: Layer) -> Layer:
  """ReLU."""
  if never_negative(x):
    return x
  if isinstance(x, Conv | Dense | Add):
    return dataclasses.replace(x, relu=True)
  if isinstance(x, Shuffle):
    return shuffle(relu(x.x), x.groups)
  if isinstance(x, Concat):
    return Concat(tuple(map(relu, x.inputs)), x.shape)
  return Relu((x,), x.shape)


def conv(x: Layer, kernel: np.ndarray, stride: tuple[int, int], padding: Padding, groups: int) -> Layer:
  """Convolution with a kernel HWIO (k, k, c_in / groups, c_out), without bias."""
  kernel = np.asarray(kernel, np.float64)
  if isinstance(x, Affine) and x.scale.all():
    # The scale goes into the kernel. The offset cannot go into the bias of a convolution that pads: the padding is
    # zeros, so at the border fewer of the offsets are summed.
    by_input = x.scale.reshape(groups, -1).T[:, :, None]  # (c_in,) -> (g, c_in/g) -> (c_in/g, g, 1)
    *window, c_in, c_out = kernel.shape
    kernel = kernel.reshape(*window, c_in, groups, c_out // groups) * by_input  # (k, k, i, o) -> (k, k, i, g, o/g)
    kernel = kernel.reshape(*window, c_in, c_out)  # (k, k, i, g, o/g) -> (k, k, i, o)
    x = affine(x.x, 1, x.offset / x.scale)
  (top, bottom), (left, right) = padding
  h = (x.shape[0] + top + bottom - kernel.shape[0]) // stride[0] + 1
  w = (x.shape[1] + left + right - kernel.shape[1]) // stride[1] + 1
  c_out = kernel.shape[-1]
  return Conv((x,), (h, w, c_out), kernel, np.zeros(c_out), stride, padding, groups)


def shuffle(x: Layer, groups: int) -> Layer:
  """The channel shuffle; with one group, or as many as channels, it does nothing."""
  return x if groups in (1, x.shape[-1]) else Shuffle((x,), x.shape, groups)


def shuffled(channels: np.ndarray, groups: int) -> np.ndarray:
  """A vector (c,) in the order of the channels after a shuffle."""
  return channels.reshape(groups, -1).T.ravel()  # (c,) -> (g, c/g) -> (c/g, g) -> (c,)


def without_groups(output: Layer) -> Layer:
  """The same network with dense convolutions instead of grouped ones, and without the shuffles after convolutions.

  A dense kernel is zero where a grouped one has no weights. Its output channels are in the order after the shuffle.
  Depthwise convolutions are kept.
  """

  def change(layer: Layer, new: Layer) -> Layer:
    if isinstance(new, Conv) and new.groups > 1 and not new.depthwise:
      return dataclasses.replace(new, kernel=_ungrouped(new.kernel, new.groups), groups=1)
    if isinstance(new, Shuffle) and isinstance(new.x, Conv):
      order = shuffled(np.arange(new.shape[-1]), new.groups)
      return dataclasses.replace(new.x, kernel=new.x.kernel[..., order], bias=new.x.bias[order])
    return new

  return rebuilt(output, change)[output]


def without_average_pools(output: Layer) -> Layer:
  """The same network with each average pool replaced by a depthwise convolution whose weights are all equal."""

  def change(layer: Layer, new: Layer) -> Layer:
    if not isinstance(new, AveragePool):
      return new
    c = new.shape[-1]
    kernel = np.full((*new.window, 1, c), 1 / (new.window[0] * new.window[1]))
    return Conv(new.inputs, new.shape, kernel, np.zeros(c), new.stride, new.padding, c, never_negative(new.x))

  return rebuilt(output, change)[output]


def _ungrouped(kernel: np.ndarray, groups: int) -> np.ndarray:
  """(k, k, c_in / g, c_out) -> (k, k, c_in, c_out), zero between different groups."""
  return np.concatenate(
    [
      np.pad(part, ((0, 0), (0, 0), (i * part.shape[2], (groups - 1 - i) * part.shape[2]), (0, 0)))
      for i, part in enumerate(np.split(kernel, groups, axis=-1))
    ],
    axis=-1,
  )
