"""For CPUs: a matrix product for each group, and 3x3 windows as shifted slices (`windows3x3`).

XLA:CPU is slow at grouped convolutions and at the gradients of pools.

- A 1x1 group convolution is one matrix product for each group. The results are stacked along a new last axis, which is
  the shuffled order, so that writing them performs the shuffle.
- In the compiled program, each group remains an array of its own between units. A unit's output is a concatenation of
  its groups, and the next unit splits it again, but XLA removes both the concatenation and the split. It does so only
  because the sums and ReLUs below are written group by group.
- `folding` merges the last 1x1 convolution and the norms before and after it into one convolution.

The gradients are written by hand (`jax.custom_vjp`), so forward-mode differentiation is not possible.
"""

import functools

import jax
import jax.numpy as jnp

from shufflenet_jax.models.batch_norm import Moments, Norm, moments, per_channel
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.formulations import folding, windows3x3
from shufflenet_jax.models.formulations.interface import PerLayer
from shufflenet_jax.models.formulations.unfused import unfused
from shufflenet_jax.models.layers import relu


def unit(
  kernels: PerLayer,
  norms: PerLayer,
  x: jax.Array,
  *,
  stride: int,
  compress_groups: int,
  groups: int,
  shuffle_groups: int,
  shortcut_first: bool,
) -> tuple[jax.Array, PerLayer]:
  """The unit of Fig. 2; see `reference.unit`."""
  shortcut, y = _use_twice(x, groups) if stride == 1 else (x, x)
  y = group_conv1x1(y, kernels.compress, compress_groups, shuffle_groups)
  compress_moments = moments(y) if norms.compress.train else None
  a, b = norms.compress.affine(compress_moments)
  y = windows3x3.affine_relu_depthwise_conv(y, a, b, kernels.depthwise.astype(x.dtype), stride)
  statistics = folding.group_statistics(y, groups, group_grams) if norms.depthwise.train else None
  folded = folding.fold_norms(kernels.expand, groups, norms.depthwise, norms.expand, statistics)
  y = group_conv1x1(y, folded.kernel, groups, bias=folded.bias)
  if stride == 1:
    y = _add_relu(shortcut, y, groups)
  else:
    pooled = windows3x3.avg_pool(shortcut)
    y = _relu(jnp.concatenate([pooled, y] if shortcut_first else [y, pooled], axis=-1), groups)
  return y, PerLayer(compress_moments, folded.moments_before, folded.moments_after)


def stem(kernel: jax.Array, norm: Norm, images: jax.Array) -> tuple[jax.Array, Moments | None]:
  """Conv1 and MaxPool of Table 1; see `reference.stem`."""
  return folding.stem(kernel, norm, images, conv_stride2=windows3x3.conv_stride2, max_pool=windows3x3.max_pool)


def group_conv1x1(
  x: jax.Array, kernel: jax.Array, groups: int, shuffle_groups: int = 1, bias: jax.Array | None = None
) -> jax.Array:
  """1x1 group convolution, then `channel_shuffle`, then a bias, which is added in float32.

  Args:
    x: (n, h, w, c_in).
    kernel: HWIO (1, 1, c_in / groups, c_out), is cast to x's dtype.
    groups: must divide c_in and c_out.
    shuffle_groups: the argument of `channel_shuffle`; 1 for none.
    bias: float32 (c_out,), in the shuffled order.

  Returns:
    (n, h, w, c_out), x's dtype.
  """
  # Products of 2-D arrays, so that the gradient of the kernel is a product too, without a transposed copy of x.
  kernel = kernel.astype(x.dtype)[0, 0]  # (1, 1, c_in/g, c_out) -> (c_in/g, c_out)
  positions, c_out = x.shape[:-1], kernel.shape[-1]
  if groups == 1:
    y = _pixels(x) @ channel_shuffle(kernel, shuffle_groups)
    return _add_bias(y.reshape(*positions, c_out), bias)  # (n*h*w, c_out) -> (n, h, w, c_out)
  y = [_pixels(xi) @ ki for xi, ki in zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1))]
  if shuffle_groups == groups:
    # Stacking is the shuffle. Unfused, because some readers of the stack would otherwise recompute it.
    def stack(*y):
      return jnp.stack(y, -1).reshape(*positions, c_out)  # (n*h*w, c_out/g, g) -> (n, h, w, c_out)

    return _add_bias(unfused(stack, *y), bias)
  y = [yi.reshape(*positions, -1) for yi in y]  # (n*h*w, c_out/g) -> (n, h, w, c_out/g)
  if shuffle_groups == 1 and bias is not None:  # by group, so that the next unit's split removes the concatenation
    return jnp.concatenate([_add_bias(yi, bi) for yi, bi in zip(y, jnp.split(bias, groups))], -1)
  return _add_bias(channel_shuffle(jnp.concatenate(y, -1), shuffle_groups), bias)


def _pixels(x):
  return x.reshape(-1, x.shape[-1])  # (n, h, w, c) -> (n*h*w, c)


def _add_bias(y, bias):
  return y if bias is None else (y.astype(jnp.float32) + per_channel(bias)).astype(y.dtype)


def group_grams(x: jax.Array, groups: int) -> jax.Array:
  """Sums of products of the channels of each group: (n, h, w, c) -> float32 (g, c/g, c/g)."""
  return jnp.stack([folding.gram(_pixels(xi)) for xi in jnp.split(x, groups, -1)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _use_twice(x, groups):
  """(x, x), for the shortcut and the branch; their gradients are added group by group."""
  return x, x


def _use_twice_backward(groups, _, gradients):
  by_group = zip(*(jnp.split(gradient, groups, -1) for gradient in gradients))
  return (jnp.concatenate([a + b for a, b in by_group], -1),)


_use_twice.defvjp(lambda x, groups: ((x, x), None), _use_twice_backward)


def _relu(x, groups):
  """ReLU group by group. Each result is written once, not recomputed by every reader.

  That is the effect of `unfused`. It has to be given a function: here the barrier, which serves only as an identity.
  """
  return jnp.concatenate(unfused(jax.lax.optimization_barrier, [relu(xi) for xi in jnp.split(x, groups, -1)]), -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _add_relu(x, y, groups):
  """ReLU of the sum, computed as in `_relu`."""
  sums = [relu(xi + yi) for xi, yi in zip(jnp.split(x, groups, -1), jnp.split(y, groups, -1))]
  return jnp.concatenate(unfused(jax.lax.optimization_barrier, sums), -1)


def _add_relu_forward(x, y, groups):
  out = _add_relu(x, y, groups)
  return out, out


def _add_relu_backward(groups, out, gradient):
  # The mask comes from the output, which is in memory. To take it from the sums, XLA would compute them once more.
  by_group = zip(jnp.split(out, groups, -1), jnp.split(gradient, groups, -1))
  gradient = jnp.concatenate([jax.lax.select(o > 0, g, jnp.zeros_like(g)) for o, g in by_group], -1)
  return gradient, gradient


_add_relu.defvjp(_add_relu_forward, _add_relu_backward)
