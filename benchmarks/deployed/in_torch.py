"""Plain layers as a PyTorch module, so that PyTorch runs the same networks as the other runtimes, without norms."""

import functools

import numpy as np
import torch
import torch.nn.functional as F

from shufflenet_jax.deployment import layers
from shufflenet_jax.deployment.layers import Layer


class Module(torch.nn.Module):
  """uint8 pictures (n, h, w, 3) -> the output of the layers, float32. Activations are NCHW, stored as NHWC."""

  def __init__(self, output: Layer):
    super().__init__()
    order = layers.in_order(output)
    number = {layer: i for i, layer in enumerate(order)}
    # Numbers and functions rather than layers and a dispatch by type, which torch.compile would not see through.
    self._steps = []
    for i, layer in enumerate(order[1:], start=1):
      weights = _weights(layer)
      for name, array in weights.items():
        self.register_buffer(f"{name}{i}", array)
      function = functools.partial(_apply.dispatch(type(layer)), layer)
      self._steps.append((function, [number[x] for x in layer.inputs], {name: f"{name}{i}" for name in weights}))

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    values = [images]
    for function, inputs, weights in self._steps:
      named = {name: getattr(self, buffer) for name, buffer in weights.items()}
      values.append(function(*(values[i] for i in inputs), **named))
    return values[-1]


def _weights(layer: Layer) -> dict[str, torch.Tensor]:
  """The layer's weights in PyTorch's layouts."""
  if isinstance(layer, layers.Affine):
    shape = (1, -1, 1, 1) if len(layer.shape) == 3 else (1, -1)
    return {"scale": _tensor(layer.scale.reshape(shape)), "offset": _tensor(layer.offset.reshape(shape))}
  if isinstance(layer, layers.Conv):
    kernel = _tensor(layer.kernel.transpose(3, 2, 0, 1))  # (k, k, c_in/g, c_out) -> (c_out, c_in/g, k, k)
    return {"kernel": kernel.contiguous(memory_format=torch.channels_last), "bias": _tensor(layer.bias)}
  if isinstance(layer, layers.Dense):
    return {"kernel": _tensor(layer.kernel.T), "bias": _tensor(layer.bias)}  # (c_in, c_out) -> (c_out, c_in)
  return {}


def _tensor(array: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(np.array(array, np.float32, order="C"))


def _relu(x: torch.Tensor, layer) -> torch.Tensor:
  return F.relu(x) if layer.relu else x


def _padded(x: torch.Tensor, layer, value: float = 0.0) -> tuple[torch.Tensor, tuple[int, int]]:
  """The input, padded if PyTorch's operators have no such padding, and the padding that is left to them."""
  (top, bottom), (left, right) = layer.padding
  if top == bottom and left == right:
    return x, (top, left)
  return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


@functools.singledispatch
def _apply(layer: Layer, *inputs: torch.Tensor) -> torch.Tensor:
  raise NotImplementedError(type(layer).__name__)


@_apply.register
def _(layer: layers.Float, x):
  return x.permute(0, 3, 1, 2).float()  # (n, h, w, c) -> (n, c, h, w), still stored as NHWC


@_apply.register
def _(layer: layers.Affine, x, scale, offset):
  return x * scale + offset


@_apply.register
def _(layer: layers.Conv, x, kernel, bias):
  x, padding = _padded(x, layer)
  return _relu(F.conv2d(x, kernel, bias, layer.stride, padding, groups=layer.groups), layer)


@_apply.register
def _(layer: layers.Dense, x, kernel, bias):
  return _relu(F.linear(x, kernel, bias), layer)


@_apply.register
def _(layer: layers.MaxPool, x):
  x, padding = _padded(x, layer, -float("inf"))
  return F.max_pool2d(x, layer.window, layer.stride, padding)


@_apply.register
def _(layer: layers.AveragePool, x):
  x, padding = _padded(x, layer)
  return F.avg_pool2d(x, layer.window, layer.stride, padding)


@_apply.register
def _(layer: layers.Mean, x):
  return x.mean((2, 3))  # (n, c, h, w) -> (n, c)


@_apply.register
def _(layer: layers.Add, x, y):
  return _relu(x + y, layer)


@_apply.register
def _(layer: layers.Concat, *inputs):
  return torch.cat(inputs, 1)


@_apply.register
def _(layer: layers.Shuffle, x):
  n, c, h, w = x.shape
  g = layer.groups
  # (n, c, h, w) -> (n, g, c/g, h, w) -> (n, c/g, g, h, w) -> (n, c, h, w)
  return x.view(n, g, c // g, h, w).transpose(1, 2).reshape(n, c, h, w)  # torch.compile merges it with its neighbours


@_apply.register
def _(layer: layers.Flatten, x):
  return x.permute(0, 2, 3, 1).flatten(1)  # (n, c, h, w) -> (n, h, w, c) -> (n, h*w*c)


@_apply.register
def _(layer: layers.LocalResponseNorm, x):
  size = 2 * layer.radius + 1  # PyTorch divides the sum by it
  return F.local_response_norm(x, size, alpha=layer.scale * size, beta=layer.power, k=layer.offset)
