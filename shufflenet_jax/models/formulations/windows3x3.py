"""Convolutions and pools over 3x3 windows, for XLA:CPU.

A window is nine shifted slices of the image, which are multiplied and added elementwise. The gradients are written as
slices too: differentiation would turn each slice into a padded array of its own.

Images are float (c, h, w, n), see `planes`; windows are padded by 1. In the shapes, o = ceil(side / stride), for
height and width. benchmarks/RESULTS.md has the measurements.
"""

import functools

import jax
import jax.numpy as jnp

from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.formulations.channels import group_conv1x1, per_plane, plane_sums
from shufflenet_jax.models.formulations.unfused import unfused

OFFSETS = [(i, j) for i in range(3) for j in range(3)]  # (row, column) of the positions in a window


def _pad(x):
  return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))


def _windows(x, stride):
  """(c, h, w, n) -> nine arrays (c, o, o, n), one for each of `OFFSETS`: every window's value there; 0 outside."""
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
  return sum(pixels * per_plane(kernel[i, j, 0]) for pixels, (i, j) in zip(_windows(x, stride), OFFSETS))


def _input_gradient(dy, kernel, stride, sides):
  """The gradient of `_convolve` for its input, whose height and width are `sides`."""
  if stride == 1:
    return _convolve(dy, kernel[::-1, ::-1], 1)
  return _overlap([dy * per_plane(kernel[i, j, 0]) for i, j in OFFSETS], stride, sides)


def _overlap(gradients, stride, sides):
  """The transpose of `_windows`: adds the gradients (c, o, o, n) for each of `OFFSETS` where the windows overlap.

  The result is (c, h, w, n) with the `sides` h and w.
  """
  h, w = sides
  if stride == 1:
    return sum(_pad(d)[:, 2 - i : 2 - i + h, 2 - j : 2 - j + w] for d, (i, j) in zip(gradients, OFFSETS))
  rows = [_interleave(*gradients[first : first + 3], axis=2) for first in (0, 3, 6)]
  return _interleave(*rows, axis=1)[:, :h, :w]


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

  Up to eight rows are added up elementwise first, because XLA:CPU vectorises a sum over an array, but not one over a
  product of slices.
  """
  c, o, columns, n = dy.shape
  rows = max(d for d in range(1, 9) if o % d == 0)
  by_rows = (c, o // rows, rows, columns, n)
  padded, (h, w), dy = _pad(x), x.shape[1:3], dy.reshape(by_rows)  # (c, o, o, n) -> (c, o/rows, rows, o, n)
  products = []
  for i, j in OFFSETS:
    pixels = padded[:, i : i + h : stride, j : j + w : stride].reshape(by_rows)  # (c, o, o, n) -> as dy
    products.append(sum(pixels[:, :, row] * dy[:, :, row] for row in range(rows)))
  return jnp.stack(products).sum((2, 3)).sum(-1)  # (9, c, o/rows, o, n) -> (9, c, n) -> (9, c)


def _gradients(x, kernel, dy, stride):
  """The gradients of `_convolve` for its input and its kernel."""
  dkernel = _kernel_gradient(x, dy, stride).reshape(kernel.shape)  # (9, c) -> (3, 3, 1, c)
  return _input_gradient(dy, kernel, stride, x.shape[1:3]), dkernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """3x3 depthwise convolution: (c, h, w, n) and HWIO (3, 3, 1, c), of one dtype -> (c, o, o, n)."""
  return unfused(lambda x, kernel: _convolve(x, kernel, stride), x, kernel)


depthwise_conv.defvjp(
  lambda x, kernel, stride: (depthwise_conv(x, kernel, stride), (x, kernel)),
  lambda stride, residuals, dy: unfused(functools.partial(_gradients, stride=stride), *residuals, dy),
)


def _shuffle_affine_relu(x, a, b, groups):
  y = (channel_shuffle(x, groups, axis=0).astype(jnp.float32) * per_plane(a) + per_plane(b)).astype(x.dtype)
  return jax.lax.max(y, jnp.zeros_like(y))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def shuffle_affine_relu_depthwise_conv(
  x: jax.Array, a: jax.Array, b: jax.Array, kernel: jax.Array, stride: int, shuffle_groups: int
) -> jax.Array:
  """3x3 depthwise convolution of relu(a * shuffled x + b), which is written to memory at most in its padded form.

  Args:
    x: (c, h, w, n), not shuffled.
    a, b: float32 (c,), in the shuffled order; the map is computed in float32 and rounded to x's dtype.
    kernel: HWIO (3, 3, 1, c), x's dtype, in the shuffled order.
    stride: 1 or 2.
    shuffle_groups: the argument of `channel_shuffle`; 1 for none.

  Returns:
    (c, o, o, n), x's dtype, in the shuffled order.
  """

  def convolve(x, a, b, kernel):
    return _convolve(_shuffle_affine_relu(x, a, b, shuffle_groups), kernel, stride)

  return unfused(convolve, x, a, b, kernel)


def _shuffle_affine_relu_depthwise_conv_backward(stride, shuffle_groups, residuals, dy):
  back_groups = len(residuals[1]) // shuffle_groups  # a shuffle with so many groups is the inverse

  def gradients(x, a, b, kernel, dy):
    y = _shuffle_affine_relu(x, a, b, shuffle_groups)
    dy, dkernel = _gradients(y, kernel, dy, stride)
    return channel_shuffle(jax.lax.select(y > 0, dy, jnp.zeros_like(dy)), back_groups, axis=0), dkernel

  x, a = residuals[:2]
  dy, dkernel = unfused(gradients, *residuals, dy)  # dy: for a * x + b, in x's order
  wide = dy.astype(jnp.float32)
  da, db = (
    channel_shuffle(sums, shuffle_groups) for sums in (plane_sums(wide * x.astype(jnp.float32)), plane_sums(dy))
  )
  return (wide * per_plane(channel_shuffle(a, back_groups))).astype(x.dtype), da, db, dkernel


shuffle_affine_relu_depthwise_conv.defvjp(
  lambda *arguments: (shuffle_affine_relu_depthwise_conv(*arguments), arguments[:4]),
  _shuffle_affine_relu_depthwise_conv_backward,
)


def conv(x: jax.Array, kernel: jax.Array, stride: int, groups: int = 1) -> jax.Array:
  """3x3 convolution: (c, h, w, n) and HWIO (3, 3, c/g, f), of one dtype -> (f, o, o, n).

  It is a matrix product of the patches of the images, for each group. XLA:CPU would compute the stem's convolution with
  YNNPACK, which takes up to six times as long, and a grouped one by a slow loop.
  """
  # (3, 3, c/g, f) -> (1, 1, 9c/g, f)
  return group_conv1x1(_patches(x, stride, groups), kernel.reshape(1, 1, -1, kernel.shape[-1]), groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _patches(x, stride, groups):
  """(c, h, w, n) -> (9c, o, o, n): for each group, and each of `OFFSETS`, the group's channels at that offset."""
  (c, h, w, _), padded = x.shape, unfused(_pad, x)
  pixels = [padded[:, i : i + h : stride, j : j + w : stride] for i, j in OFFSETS]
  by_group = jnp.stack([p.reshape(groups, c // groups, *p.shape[1:]) for p in pixels], 1)  # (g, 9, c/g, o, o, n)
  return by_group.reshape(9 * c, *pixels[0].shape[1:])


def _patches_backward(stride, groups, residuals, dy):
  (x,), (planes, *o) = residuals, dy.shape  # of x only the shape is used
  sides = x.shape[1:3]
  by_group = dy.reshape(groups, 9, planes // 9 // groups, *o)  # (9c, o, o, n) -> (g, 9, c/g, o, o, n)
  gradients = [by_group[:, k].reshape(planes // 9, *o) for k in range(9)]  # (g, c/g, o, o, n) -> (c, o, o, n)
  return (unfused(lambda *gradients: _overlap(gradients, stride, sides), *gradients),)


_patches.defvjp(lambda x, stride, groups: (_patches(x, stride, groups), (x,)), _patches_backward)


def _ninth(x):
  return jnp.full((3, 3, 1, x.shape[0]), 1 / 9, x.dtype)


@jax.custom_vjp
def avg_pool(x: jax.Array) -> jax.Array:
  """3x3 average pool of stride 2 that counts its padding as zeros: (c, h, w, n) -> (c, o, o, n)."""
  return unfused(lambda x: _convolve(x, _ninth(x), 2), x)


avg_pool.defvjp(
  lambda x: (avg_pool(x), x),
  lambda x, dy: (unfused(lambda dy: _input_gradient(dy, _ninth(x), 2, x.shape[1:3]), dy),),
)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """3x3 max pool of stride 2: (c, h, w, n) -> (c, o, o, n).

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
