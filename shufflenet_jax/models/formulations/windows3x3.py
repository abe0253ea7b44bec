"""Depthwise convolution, pools and the stem's convolution over 3x3 windows, for XLA:CPU.

XLA:CPU is slow at grouped convolutions and at the gradients of pools. Here a window is nine shifted slices of the
image, which are multiplied and added elementwise. The gradients are written as slices too: differentiation would turn
each slice into a padded array of its own.

All functions take float images (n, h, w, c) and pad by 1. In the shapes, o = ceil(side / stride), for height and width.
benchmarks/RESULTS.md has the measurements.
"""

import functools
import math

import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import per_channel
from shufflenet_jax.models.formulations.unfused import unfused

OFFSETS = [(i, j) for i in range(3) for j in range(3)]  # (row, column) of the positions in a window


def _pad(x):
  return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))


def _windows(x, stride):
  """(n, h, w, c) -> nine arrays (n, o, o, c), one for each of `OFFSETS`: every window's value there; 0 outside."""
  if stride == 1:  # pad, then slice: the padded image is written once and read nine times
    padded, (h, w) = _pad(x), x.shape[1:3]
    return [padded[:, i : i + h, j : j + w] for i, j in OFFSETS]
  # Stride 2: slice, then pad, which is three times faster here, but three times slower at stride 1.
  return [_every_second(_every_second(x, i, axis=1), j, axis=2) for i, j in OFFSETS]


def _every_second(x, offset, axis, outside=0.0):
  """The value at `offset` (0, 1 or 2) of each window of stride 2 along an axis; `outside` where that is padding."""
  side = x.shape[axis]
  pad_before = int(offset == 0)
  first = offset + 1 if offset == 0 else offset - 1
  x = jax.lax.slice_in_dim(x, first, None, 2, axis)
  pad = [(0, 0, 0)] * x.ndim
  pad[axis] = (pad_before, -(-side // 2) - pad_before - x.shape[axis], 0)
  return jax.lax.pad(x, jnp.asarray(outside, x.dtype), pad)


def _convolve(x, kernel, stride):
  return sum(pixels * per_channel(kernel[i, j, 0]) for pixels, (i, j) in zip(_windows(x, stride), OFFSETS))


def _input_gradient(dy, kernel, stride, sides):
  """The gradient of `_convolve` for its input, whose height and width are `sides`."""
  if stride == 1:
    return _convolve(dy, kernel[::-1, ::-1], 1)
  rows = [_interleave(*[dy * per_channel(kernel[i, j, 0]) for j in range(3)], axis=2) for i in range(3)]
  return _interleave(*rows, axis=1)[:, : sides[0], : sides[1]]


def _interleave(first, middle, last, axis):
  """Adds the gradients of overlapping windows of stride 2 along an axis: three arrays of o positions -> one of 2o.

  The arguments are the gradients for each window's first, middle and last position. The middle of window p is position
  2p of the image; position 2p + 1 is the last of window p and the first of window p + 1.
  """
  o = middle.shape[axis]
  pad = [(0, 0, 0)] * middle.ndim
  pad[axis] = (-1, 1, 0)
  odd = last + jax.lax.pad(first, jnp.zeros((), middle.dtype), pad)
  both = jnp.stack([middle, odd], axis + 1)
  return both.reshape(*middle.shape[:axis], 2 * o, *middle.shape[axis + 1 :])  # (..., o, 2, ...) -> (..., 2o, ...)


def _kernel_gradient(x, dy, stride):
  """The gradient of `_convolve` for its kernel: (9, c).

  Up to eight parts of the batch are added up elementwise first, because XLA:CPU vectorises a sum over an array, but not
  one over a product of slices.
  """
  n, parts = len(x), math.gcd(len(x), 8)
  padded = _pad(x).reshape(parts, n // parts, *(side + 2 for side in x.shape[1:3]), -1)  # (n, ...) -> (8, n/8, ...)
  dy = dy.reshape(parts, n // parts, *dy.shape[1:])  # (n, o, o, c) -> (8, n/8, o, o, c)
  h, w = x.shape[1:3]
  windows = [padded[:, :, i : i + h : stride, j : j + w : stride] for i, j in OFFSETS]
  products = [sum(pixels * d for pixels, d in zip(positions, dy)) for positions in windows]
  return jnp.stack(products).sum((1, 2, 3))  # (9, n/8, o, o, c) -> (9, c)


def _gradients(x, kernel, dy, stride):
  dkernel = _kernel_gradient(x, dy, stride).reshape(kernel.shape)  # (9, c) -> (3, 3, 1, c)
  return _input_gradient(dy, kernel, stride, x.shape[1:3]), dkernel


def _affine_relu(x, a, b):
  y = (x.astype(jnp.float32) * per_channel(a) + per_channel(b)).astype(x.dtype)
  return jax.lax.max(y, jnp.zeros_like(y))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def affine_relu_depthwise_conv(x: jax.Array, a: jax.Array, b: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """3x3 depthwise convolution of relu(a * x + b), which at stride 1 is written to memory only in its padded form.

  Args:
    x: (n, h, w, c).
    a, b: float32 (c,); the map is computed in float32 and rounded to x's dtype.
    kernel: HWIO (3, 3, 1, c), x's dtype.
    stride: 1 or 2.

  Returns:
    (n, o, o, c), x's dtype.
  """
  return unfused(lambda x, a, b, kernel: _convolve(_affine_relu(x, a, b), kernel, stride), x, a, b, kernel)


def _affine_relu_depthwise_conv_backward(stride, residuals, dy):
  def gradients(x, a, b, kernel, dy):
    y = _affine_relu(x, a, b)
    dy, dkernel = _gradients(y, kernel, dy, stride)
    return jax.lax.select(y > 0, dy, jnp.zeros_like(dy)), dkernel

  x, a = residuals[:2]
  dy, dkernel = unfused(gradients, *residuals, dy)
  wide = dy.astype(jnp.float32)
  da, db = (wide * x.astype(jnp.float32)).sum((0, 1, 2)), wide.sum((0, 1, 2))
  return (wide * per_channel(a)).astype(x.dtype), da, db, dkernel


affine_relu_depthwise_conv.defvjp(
  lambda *arguments: (affine_relu_depthwise_conv(*arguments), arguments[:4]), _affine_relu_depthwise_conv_backward
)


def conv_stride2(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution of stride 2 of images of a few channels: HWIO (3, 3, c, f) -> (n, o, o, f).

  It is one matrix product of the image's patches. XLA:CPU would compute a convolution with YNNPACK, which takes up to
  six times as long.
  """
  n, h, w, c = x.shape
  rows, columns = -(-h // 2), -(-w // 2)
  x = jax.lax.pad(
    x, jnp.zeros((), x.dtype), ((0, 0, 0), (1, 2 * rows + 1 - h, 0), (1, 2 * columns + 1 - w, 0), (0, 0, 0))
  )
  # Pairs of rows and of pixels: (n, 2*rows + 2, 2*columns + 2, c) -> (n, rows + 1, 2, columns + 1, 2c)
  x = x.reshape(n, rows + 1, 2, columns + 1, 2 * c)
  runs = []  # a patch's row is a pair of pixels and the first pixel of the next pair, which lie together in memory
  for i in range(3):
    row = x[:, i // 2 : i // 2 + rows, i % 2]
    runs += [row[:, :, :-1], row[:, :, 1:, :c]]
  # (n, rows, columns, 9c) -> (n*rows*columns, 9c)
  patches = jnp.concatenate(runs, -1).reshape(n * rows * columns, 9 * c)
  # (n*rows*columns, f) -> (n, rows, columns, f)
  return (patches @ kernel.reshape(9 * c, -1)).reshape(n, rows, columns, kernel.shape[-1])


def _ninth(x):
  return jnp.full((3, 3, 1, x.shape[-1]), 1 / 9, x.dtype)


@jax.custom_vjp
def avg_pool(x: jax.Array) -> jax.Array:
  """3x3 average pool of stride 2 that counts its padding as zeros: (n, h, w, c) -> (n, o, o, c)."""
  return unfused(lambda x: _convolve(x, _ninth(x), 2), x)


avg_pool.defvjp(
  lambda x: (avg_pool(x), x),
  lambda x, dy: (unfused(lambda dy: _input_gradient(dy, _ninth(x), 2, x.shape[1:3]), dy),),
)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """3x3 max pool of stride 2: (n, h, w, c) -> (n, o, o, c).

  The gradient of a window goes to the first of its largest values, and is dropped where that value is NaN.
  """
  return unfused(lambda x: _largest(_largest(x, 2), 1), x)


def _largest(x, axis):
  return functools.reduce(jax.lax.max, [_every_second(x, i, axis, -jnp.inf) for i in range(3)])


def _largest_gradient(x, y, dy, axis):
  """The gradient for x of y = `_largest(x, axis)`."""
  first, second, third = [_every_second(x, i, axis, -jnp.inf) == y for i in range(3)]
  receives = (first, second & ~first, third & ~second & ~first)
  by_offset = [jax.lax.select(where, dy, jnp.zeros_like(dy)) for where in receives]
  return jax.lax.slice_in_dim(_interleave(*by_offset, axis), 0, x.shape[axis], axis=axis)


def _max_pool_backward(residuals, dy):
  x, y = residuals
  # The gradient goes to the first row that has the largest value, and then to the first position in that row.
  rows = unfused(lambda x: _largest(x, 2), x)
  drows = unfused(lambda *arrays: _largest_gradient(*arrays, 1), rows, y, dy)
  return (_largest_gradient(x, rows, drows, 2),)


def _max_pool_forward(x):
  y = max_pool(x)
  return y, (x, y)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
