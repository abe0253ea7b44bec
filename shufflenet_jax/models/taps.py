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


def _pad(x, value=0.0):
  return jax.lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))


def _slices(padded, stride):
  """(n, h + 2, w + 2, c) -> nine of (n, o, o, c)."""
  h, w = padded.shape[1] - 2, padded.shape[2] - 2
  return [padded[:, i : i + h : stride, j : j + w : stride] for i, j in TAPS]


def _convolve(padded, kernel, stride):
  return sum(pixels * kernel[i, j, 0] for pixels, (i, j) in zip(_slices(padded, stride), TAPS))


def _towards_input(dy, kernel, stride, sides):
  """Gradient for the convolution's input: the kernel turned round, over dy's values put `stride` positions apart."""
  spread = [(1, side - stride * (out - 1), stride - 1) for side, out in zip(sides, dy.shape[1:3])]
  dy = jax.lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
  return _convolve(dy, kernel[::-1, ::-1], 1)


def _towards_kernel(x, dy, stride):
  """A few images are added up elementwise first: sums over products of slices are not vectorised, over an array are."""
  n, parts = len(x), math.gcd(len(x), 8)
  padded = _pad(x).reshape(parts, n // parts, *(side + 2 for side in x.shape[1:3]), -1)  # (n, ...) -> (8, n/8, ...)
  dy = dy.reshape(parts, n // parts, *dy.shape[1:])  # (n, o, o, c) -> (8, n/8, o, o, c)
  products = zip(*([pixels * d for pixels in _slices(image, stride)] for image, d in zip(padded, dy)))
  return jnp.stack([sum(product) for product in products]).sum((1, 2, 3))  # (9, n/8, o, o, c) -> (9, c)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """3x3 depthwise convolution: (n, h, w, c) and HWIO (3, 3, 1, c) -> (n, o, o, c)."""
  return apart(lambda x, kernel: _convolve(_pad(x), kernel, stride), x, kernel)


def _depthwise_backward(stride, kept, dy):
  def gradients(x, kernel, dy):
    dkernel = _towards_kernel(x, dy, stride).reshape(kernel.shape)  # (9, c) -> (3, 3, 1, c)
    return _towards_input(dy, kernel, stride, x.shape[1:3]), dkernel

  return apart(gradients, *kept, dy)


depthwise.defvjp(lambda x, kernel, stride: (depthwise(x, kernel, stride), (x, kernel)), _depthwise_backward)


def _ninth(x):
  return jnp.full((3, 3, 1, x.shape[-1]), 1 / 9, x.dtype)


@jax.custom_vjp
def avg_pool(x: jax.Array) -> jax.Array:
  """3x3 average pool of stride 2, the padding counted in: (n, h, w, c) -> (n, o, o, c)."""
  return apart(lambda x: _convolve(_pad(x), _ninth(x), 2), x)


avg_pool.defvjp(
  lambda x: (avg_pool(x), x),
  lambda x, dy: (apart(lambda dy: _towards_input(dy, _ninth(x), 2, x.shape[1:3]), dy),),
)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """3x3 max pool of stride 2: (n, h, w, c) -> (n, o, o, c). The gradient goes to a window's first largest value."""
  return apart(lambda x: functools.reduce(jax.lax.max, _slices(_pad(x, -jnp.inf), 2)), x)


def _max_pool_backward(kept, dy):
  def gradient(x, y, dy):
    first = jnp.full(y.shape, 9)
    for tap, pixels in reversed(list(enumerate(_slices(_pad(x, -jnp.inf), 2)))):
      first = jax.lax.select(pixels == y, jnp.full_like(first, tap), first)
    of_tap = [jax.lax.select(first == tap, dy, jnp.zeros_like(dy)) for tap in range(9)]
    rows = [_interleave(*of_tap[3 * i : 3 * i + 3], 2) for i in range(3)]
    return _interleave(*rows, 1)[:, : x.shape[1], : x.shape[2]]

  return (apart(gradient, *kept, dy),)


def _interleave(before, at, after, axis):
  """Sums at each position what the windows say of it that are centred one before, at, and one after: o -> 2o."""
  # Window p is centred on position 2p; 2p + 1 is behind the centre of p and before that of p + 1.
  o = at.shape[axis]
  pad = [(0, 0, 0)] * at.ndim
  pad[axis] = (-1, 1, 0)
  odd = after + jax.lax.pad(before, jnp.zeros((), at.dtype), pad)
  both = jnp.stack([at, odd], axis + 1)
  return both.reshape(*at.shape[:axis], 2 * o, *at.shape[axis + 1 :])  # (..., o, 2, ...) -> (..., 2o, ...)


def _max_pool_forward(x):
  y = max_pool(x)
  return y, (x, y)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
