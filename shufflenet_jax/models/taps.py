"""3x3 windows as nine shifted slices, for XLA:CPU: its grouped convolutions and the gradients of its pools are slow.

All take float images (n, h, w, c) and pad by 1; o = ceil(side / stride). The gradients are written as slices too:
differentiation would turn each slice into a padded array of its own.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

TAPS = [(i, j) for i in range(3) for j in range(3)]


def apart(function, *arrays):
  """`function(*arrays)`, compiled apart from what is around it: its arguments and results are written to memory.

  XLA:CPU fuses whatever is elementwise into each of its readers, so that it is computed anew in each (all units'
  sums, for instance, in every later unit), and ignores optimization barriers. `function` should use `lax` where a
  function of `jnp` is a `jit` of its own, which would be kept apart as well.
  """
  with set_xla_metadata(inlineable="false"):
    return jax.jit(function)(*arrays)


def _pad(x):
  return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))


def _windows(x, stride):
  """(n, h, w, c) -> nine of (n, o, o, c): what a window's taps see at each of its places, 0 outside."""
  if stride == 1:  # the padded image is written once, and read nine times
    padded, (h, w) = _pad(x), x.shape[1:3]
    return [padded[:, i : i + h, j : j + w] for i, j in TAPS]
  # Of nine smaller slices each is padded where it is read: a third of the time, where stride 1 takes thrice as long.
  return [_tap(_tap(x, i, stride, 1), j, stride, 2) for i, j in TAPS]


def _tap(x, i, stride, axis, value=0.0):
  side = x.shape[axis]
  low = int(i == 0)
  first = stride * low + i - 1
  x = jax.lax.slice_in_dim(x, first, None, stride, axis)
  pad = [(0, 0, 0)] * x.ndim
  pad[axis] = (low, -(-side // stride) - low - x.shape[axis], 0)
  return jax.lax.pad(x, jnp.asarray(value, x.dtype), pad)


def _convolve(x, kernel, stride):
  return sum(pixels * kernel[i, j, 0] for pixels, (i, j) in zip(_windows(x, stride), TAPS))


def _towards_input(dy, kernel, stride, sides):
  """Gradient for the input, of height and width `sides`, of a convolution of stride 1 or 2."""
  if stride == 1:
    return _convolve(dy, kernel[::-1, ::-1], 1)
  rows = [_interleave(*[dy * kernel[i, j, 0] for j in range(3)], 2) for i in range(3)]
  return _interleave(*rows, 1)[:, : sides[0], : sides[1]]


def _interleave(before, at, after, axis):
  """Sums at each position what the windows say of it that are centred one before, at, and one after: o -> 2o."""
  # Window p is centred on position 2p; 2p + 1 is behind the centre of p and before that of p + 1.
  o = at.shape[axis]
  pad = [(0, 0, 0)] * at.ndim
  pad[axis] = (-1, 1, 0)
  odd = after + jax.lax.pad(before, jnp.zeros((), at.dtype), pad)
  both = jnp.stack([at, odd], axis + 1)
  return both.reshape(*at.shape[:axis], 2 * o, *at.shape[axis + 1 :])  # (..., o, 2, ...) -> (..., 2o, ...)


def _towards_kernel(x, dy, stride):
  """A few images are added up elementwise first: sums over products of slices are not vectorised, over an array are."""
  n, parts = len(x), math.gcd(len(x), 8)
  padded = _pad(x).reshape(parts, n // parts, *(side + 2 for side in x.shape[1:3]), -1)  # (n, ...) -> (8, n/8, ...)
  dy = dy.reshape(parts, n // parts, *dy.shape[1:])  # (n, o, o, c) -> (8, n/8, o, o, c)
  h, w = x.shape[1:3]
  taps = [padded[:, :, i : i + h : stride, j : j + w : stride] for i, j in TAPS]
  products = [sum(pixels * d for pixels, d in zip(tap, dy)) for tap in taps]
  return jnp.stack(products).sum((1, 2, 3))  # (9, n/8, o, o, c) -> (9, c)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """3x3 depthwise convolution: (n, h, w, c) and HWIO (3, 3, 1, c) -> (n, o, o, c)."""
  return apart(lambda x, kernel: _convolve(x, kernel, stride), x, kernel)


def _gradients(x, kernel, dy, stride):
  dkernel = _towards_kernel(x, dy, stride).reshape(kernel.shape)  # (9, c) -> (3, 3, 1, c)
  return _towards_input(dy, kernel, stride, x.shape[1:3]), dkernel


def _depthwise_backward(stride, kept, dy):
  return apart(lambda x, kernel, dy: _gradients(x, kernel, dy, stride), *kept, dy)


depthwise.defvjp(lambda x, kernel, stride: (depthwise(x, kernel, stride), (x, kernel)), _depthwise_backward)


def _affine_relu(x, a, b):
  y = (x.astype(jnp.float32) * a + b).astype(x.dtype)
  return jax.lax.max(y, jnp.zeros_like(y))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def affine_relu_depthwise(x: jax.Array, a: jax.Array, b: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """`depthwise` of relu(a * x + b), which is only written padded: a and b float32 (c,), the rest as there."""
  return apart(lambda x, a, b, kernel: _convolve(_affine_relu(x, a, b), kernel, stride), x, a, b, kernel)


def _affine_relu_depthwise_backward(stride, kept, dy):
  def gradients(x, a, b, kernel, dy):
    y = _affine_relu(x, a, b)
    dy, dkernel = _gradients(y, kernel, dy, stride)
    return jax.lax.select(y > 0, dy, jnp.zeros_like(dy)), dkernel

  x, a = kept[:2]
  dy, dkernel = apart(gradients, *kept, dy)
  wide = dy.astype(jnp.float32)
  da, db = (wide * x.astype(jnp.float32)).sum((0, 1, 2)), wide.sum((0, 1, 2))
  return (wide * a).astype(x.dtype), da, db, dkernel


affine_relu_depthwise.defvjp(
  lambda *arguments: (affine_relu_depthwise(*arguments), arguments[:4]), _affine_relu_depthwise_backward
)


def conv_stride2(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution of stride 2 of a few channels, as a product of patches: HWIO (3, 3, c, f) -> (n, o, o, f).

  As a convolution, XLA:CPU hands it to YNNPACK, which takes up to six times as long.
  """
  n, h, w, c = x.shape
  rows, columns = -(-h // 2), -(-w // 2)
  x = jax.lax.pad(
    x, jnp.zeros((), x.dtype), ((0, 0, 0), (1, 2 * rows + 1 - h, 0), (1, 2 * columns + 1 - w, 0), (0, 0, 0))
  )
  x = x.reshape(n, rows + 1, 2, columns + 1, 2 * c)  # (n, 2*rows + 2, 2*columns + 2, c): pairs of rows, of pixels
  runs = []  # of a patch's rows, as they lie in memory: a pair of pixels, and the first of the next
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
  """3x3 average pool of stride 2, the padding counted in: (n, h, w, c) -> (n, o, o, c)."""
  return apart(lambda x: _convolve(x, _ninth(x), 2), x)


avg_pool.defvjp(
  lambda x: (avg_pool(x), x),
  lambda x, dy: (apart(lambda dy: _towards_input(dy, _ninth(x), 2, x.shape[1:3]), dy),),
)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """3x3 max pool of stride 2: (n, h, w, c) -> (n, o, o, c).

  The gradient goes to a window's first largest value, and nowhere where that is NaN.
  """
  return apart(lambda x: _largest(_largest(x, 2), 1), x)


def _largest(x, axis):
  return functools.reduce(jax.lax.max, [_tap(x, i, 2, axis, -jnp.inf) for i in range(3)])


def _towards_largest(x, y, dy, axis):
  """Gradient for x of y = `_largest(x, axis)`."""
  first, second, third = [_tap(x, i, 2, axis, -jnp.inf) == y for i in range(3)]
  places = (first, second & ~first, third & ~second & ~first)
  of_tap = [jax.lax.select(place, dy, jnp.zeros_like(dy)) for place in places]
  return jax.lax.slice_in_dim(_interleave(*of_tap, axis), 0, x.shape[axis], axis=axis)


def _max_pool_backward(kept, dy):
  x, y = kept
  # The first row that has the largest value, and in it the first position.
  rows = apart(lambda x: _largest(x, 2), x)
  drows = apart(lambda *arrays: _towards_largest(*arrays, 1), rows, y, dy)
  return (_towards_largest(x, rows, drows, 2),)


def _max_pool_forward(x):
  y = max_pool(x)
  return y, (x, y)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
