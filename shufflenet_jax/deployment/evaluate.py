"""Computes plain layers in JAX: what their values are on pictures, for calibration and for tests."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.deployment import layers
from shufflenet_jax.deployment.layers import Layer


def values(output: Layer, images: jax.Array) -> dict[Layer, jax.Array]:
  """The output of each layer: layer -> float32 (n, ...), and uint8 for the pictures.

  Args:
    output: the network.
    images: uint8 (n, h, w, 3).
  """
  computed: dict[Layer, jax.Array] = {}
  for layer in layers.in_order(output):
    inputs = [computed[x] for x in layer.inputs]
    computed[layer] = images if isinstance(layer, layers.Input) else _compute(layer, *inputs)
  return computed


def compiled(output: Layer, summary: Callable[[dict[Layer, jax.Array]], dict]) -> Callable[[jax.Array], dict]:
  """A compiled function of pictures: a summary of `values`."""
  return jax.jit(lambda images: summary(values(output, images)))


def _per_channel(array, like: jax.Array) -> jax.Array:
  """(c,) -> float32 (1, ..., c), to be combined with (n, ..., c)."""
  return jnp.expand_dims(jnp.asarray(array, jnp.float32), range(like.ndim - 1))


def _relu(layer, y: jax.Array) -> jax.Array:
  return nn.relu(y) if layer.relu else y


@functools.singledispatch
def _compute(layer: Layer, *inputs: jax.Array) -> jax.Array:
  """The output of a layer, float32 (n, ...)."""
  raise NotImplementedError(type(layer).__name__)


@_compute.register
def _(layer: layers.Float, x):
  return x.astype(jnp.float32)


@_compute.register
def _(layer: layers.Affine, x):
  return x * _per_channel(layer.scale, x) + _per_channel(layer.offset, x)


@_compute.register
def _(layer: layers.Conv, x):
  y = jax.lax.conv_general_dilated(
    x,
    jnp.asarray(layer.kernel, jnp.float32),
    layer.stride,
    layer.padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=layer.groups,
  )
  return _relu(layer, y + _per_channel(layer.bias, y))


@_compute.register
def _(layer: layers.Dense, x):
  return _relu(layer, x @ jnp.asarray(layer.kernel, jnp.float32) + _per_channel(layer.bias, x))


@_compute.register
def _(layer: layers.MaxPool, x):
  return nn.max_pool(x, layer.window, layer.stride, layer.padding)


@_compute.register
def _(layer: layers.AveragePool, x):
  total = nn.pool(x, 0.0, jax.lax.add, layer.window, layer.stride, layer.padding)
  return total / (layer.window[0] * layer.window[1])


@_compute.register
def _(layer: layers.Mean, x):
  return x.mean((1, 2))  # (n, h, w, c) -> (n, c)


@_compute.register
def _(layer: layers.Relu, x):
  return nn.relu(x)


@_compute.register
def _(layer: layers.Sigmoid, x):
  return nn.sigmoid(x)


@_compute.register
def _(layer: layers.Add, x, y):
  return _relu(layer, x + y)


@_compute.register
def _(layer: layers.Gate, x, gate):
  return x * gate[:, None, None, :]  # (n, c) -> (n, 1, 1, c)


@_compute.register
def _(layer: layers.Concat, *inputs):
  return jnp.concatenate(inputs, -1)


@_compute.register
def _(layer: layers.Shuffle, x):
  n, h, w, c = x.shape
  x = x.reshape(n, h, w, layer.groups, c // layer.groups)  # (n, h, w, c) -> (n, h, w, g, c/g)
  return x.swapaxes(-1, -2).reshape(n, h, w, c)  # (n, h, w, g, c/g) -> (n, h, w, c/g, g) -> (n, h, w, c)


@_compute.register
def _(layer: layers.Flatten, x):
  return x.reshape(len(x), -1)  # (n, h, w, c) -> (n, h*w*c)


@_compute.register
def _(layer: layers.LocalResponseNorm, x):
  squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (layer.radius, layer.radius)))
  total = sum(squares[..., i : i + x.shape[-1]] for i in range(2 * layer.radius + 1))
  return x / (layer.offset + layer.scale * total) ** layer.power
