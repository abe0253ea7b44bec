"""Writes plain layers as a LiteRT (TensorFlow Lite) model.

Activations are NHWC. Grouped convolutions are CONV_2D, whose filters then have fewer input channels than the input. No
tensor has more than four dimensions, and every shape is a constant with at most one -1, the batch.
"""

import functools
from typing import ClassVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shufflenet_jax.deployment import layers
from shufflenet_jax.deployment.layers import Layer
from shufflenet_jax.deployment.tflite_graph import Graph, options

_GROUPED_CONV_2D = 6  # the version of the operator that has groups


class FloatTensors:
  """A graph, and the tensors of a model that computes in float32.

  Attributes:
    graph: to which layers are added.
    versions: of operators, see `Graph`.
  """

  versions: ClassVar[dict[str, int]] = {}

  def __init__(self, batch: int | None):
    """`batch` is the only batch size that the model accepts; None for any."""
    self.graph = Graph(batch, self.versions)

  def output(self, layer: Layer, shape: tuple[int, ...] | None = None, rows: int = 1) -> int:
    """Adds a tensor for the values of a layer, in another shape if one is given; see `Graph.tensor`."""
    return self.graph.tensor(_name(layer, self.graph), layer.shape if shape is None else shape, rows=rows)

  def kernel_and_bias(self, layer: layers.Conv | layers.Dense, kernel: np.ndarray, channel_axis: int) -> list[int]:
    """Adds the constants of a layer.

    Args:
      layer: has the bias.
      kernel: in the operator's layout.
      channel_axis: its axis of output channels.
    """
    return [self.graph.constant(kernel), self.graph.constant(layer.bias)]

  def from_uint8(self, layer: layers.Float, x: int) -> int:
    """Converts pictures."""
    return self.graph.operator("CAST", [x], self.output(layer), options("Cast"))

  def affine(self, layer: layers.Affine, x: int) -> int:
    """`scale * x + offset` of each channel."""
    scaled = x
    if np.any(layer.scale != 1):
      scaled = self.graph.operator(
        "MUL", [x, self.graph.constant(layer.scale)], self.output(layer), options("Mul", fusedActivationFunction=0)
      )
    if not layer.offset.any():
      return scaled
    return self.graph.operator(
      "ADD", [scaled, self.graph.constant(layer.offset)], self.output(layer), options("Add", fusedActivationFunction=0)
    )

  def same_scale(self, layer: layers.Concat, inputs: list[int]) -> list[int]:
    """The inputs of a concatenation in the representation of its output."""
    return inputs

  def logits(self, x: int) -> int:
    """The network's output as float32."""
    return x


def _name(layer: Layer, graph: Graph) -> str:
  return f"{type(layer).__name__.lower()}{len(graph.tensors)}"


def encode(output: Layer, tensors: FloatTensors) -> bytes:
  """The model's bytes: `images`, uint8 (n, h, w, 3) -> `logits`, float32 (n, classes).

  Args:
    output: the network.
    tensors: how values are represented, in a new graph.
  """
  graph = tensors.graph
  order = layers.in_order(output)
  images = graph.tensor("images", order[0].shape, np.uint8)
  numbers = {order[0]: images}
  for layer in order[1:]:
    numbers[layer] = _write(layer, graph, [numbers[x] for x in layer.inputs], tensors)
  logits = tensors.logits(numbers[output])
  graph.tensors[logits].name = "logits"
  return graph.encode(images, logits)


@functools.singledispatch
def _write(layer: Layer, graph: Graph, inputs: list[int], tensors: FloatTensors) -> int:
  """Adds the operators of a layer; returns the tensor of its output."""
  raise NotImplementedError(type(layer).__name__)


def _activation(relu: bool) -> int:
  return schema.ActivationFunctionType.RELU if relu else schema.ActivationFunctionType.NONE


def _pad(layer: layers.Conv | layers.Pool, window: tuple[int, int], x: int, tensors: FloatTensors) -> tuple[int, int]:
  """The input of a convolution or pool, and LiteRT's code for the padding that its operator has to apply itself.

  If no code stands for the layer's padding, a separate operator pads the input. At stride 1, the code SAME pads all
  four sides alike if the window is odd. At stride 2, it pads an even-sized input only at the bottom and the right.
  """
  graph, padding = tensors.graph, layer.padding
  if padding == ((0, 0), (0, 0)):
    return x, schema.Padding.VALID
  odd = padding == tuple((side // 2, side // 2) for side in window) and all(side % 2 for side in window)
  # An average pool leaves SAME's padding out of the mean, but has to count it as zeros.
  if odd and layer.stride == (1, 1) and not isinstance(layer, layers.AveragePool):
    return x, schema.Padding.SAME
  h, w, c = layer.x.shape
  (top, bottom), (left, right) = padding
  amounts = graph.constant(np.array([(0, 0), *padding, (0, 0)], np.int32))
  output = tensors.output(layer.x, (top + h + bottom, left + w + right, c))
  if isinstance(layer, layers.MaxPool) and not layers.never_negative(layer.x):
    lowest = graph.constant(np.array([np.finfo(np.float32).min]))
    return graph.operator("PADV2", [x, amounts, lowest], output, options("PadV2")), schema.Padding.VALID
  return graph.operator("PAD", [x, amounts], output, options("Pad")), schema.Padding.VALID


@_write.register
def _(layer: layers.Float, graph, inputs, tensors):
  return tensors.from_uint8(layer, *inputs)


@_write.register
def _(layer: layers.Affine, graph, inputs, tensors):
  return tensors.affine(layer, *inputs)


@_write.register
def _(layer: layers.Conv, graph, inputs, tensors):
  x, padding = _pad(layer, layer.kernel.shape[:2], *inputs, tensors)
  strides = {"strideH": layer.stride[0], "strideW": layer.stride[1]}
  rest = {"padding": padding, "dilationHFactor": 1, "dilationWFactor": 1}
  rest["fusedActivationFunction"] = _activation(layer.relu)
  if layer.depthwise:
    kernel = layer.kernel.transpose(2, 0, 1, 3)  # (k, k, 1, c) -> (1, k, k, c)
    inputs = [x, *tensors.kernel_and_bias(layer, kernel, channel_axis=3)]
    made = options("DepthwiseConv2D", depthMultiplier=1, **strides, **rest)
    return graph.operator("DEPTHWISE_CONV_2D", inputs, tensors.output(layer), made)
  kernel = layer.kernel.transpose(3, 0, 1, 2)  # (k, k, c_in/g, c_out) -> (c_out, k, k, c_in/g)
  inputs = [x, *tensors.kernel_and_bias(layer, kernel, channel_axis=0)]
  version = None if layer.groups == 1 else _GROUPED_CONV_2D
  return graph.operator("CONV_2D", inputs, tensors.output(layer), options("Conv2D", **strides, **rest), version)


@_write.register
def _(layer: layers.Dense, graph, inputs, tensors):
  inputs = [*inputs, *tensors.kernel_and_bias(layer, layer.kernel.T, channel_axis=0)]  # (i, o) -> (o, i)
  made = options("FullyConnected", fusedActivationFunction=_activation(layer.relu))
  return graph.operator("FULLY_CONNECTED", inputs, tensors.output(layer), made)


@_write.register
def _(layer: layers.Pool, graph, inputs, tensors):
  x, padding = _pad(layer, layer.window, *inputs, tensors)
  made = options(
    "Pool2D",
    padding=padding,
    strideH=layer.stride[0],
    strideW=layer.stride[1],
    filterHeight=layer.window[0],
    filterWidth=layer.window[1],
    fusedActivationFunction=0,
  )
  kind = "MAX_POOL_2D" if isinstance(layer, layers.MaxPool) else "AVERAGE_POOL_2D"
  return graph.operator(kind, [x], tensors.output(layer), made)


@_write.register
def _(layer: layers.Mean, graph, inputs, tensors):
  inputs = [*inputs, graph.constant(np.array([1, 2], np.int32))]
  return graph.operator("MEAN", inputs, tensors.output(layer), options("Reducer", keepDims=False))


@_write.register
def _(layer: layers.Relu, graph, inputs, tensors):
  return graph.operator("RELU", inputs, tensors.output(layer))


@_write.register
def _(layer: layers.Sigmoid, graph, inputs, tensors):
  return graph.operator("LOGISTIC", inputs, tensors.output(layer))


@_write.register
def _(layer: layers.Add, graph, inputs, tensors):
  made = options("Add", fusedActivationFunction=_activation(layer.relu))
  return graph.operator("ADD", inputs, tensors.output(layer), made)


@_write.register
def _(layer: layers.Gate, graph, inputs, tensors):
  x, gate = inputs
  gate = _reshape(gate, (1, 1, layer.shape[-1]), layer.inputs[1], tensors)  # (n, c) -> (n, 1, 1, c)
  return graph.operator("MUL", [x, gate], tensors.output(layer), options("Mul", fusedActivationFunction=0))


@_write.register
def _(layer: layers.Concat, graph, inputs, tensors):
  made = options("Concatenation", axis=3, fusedActivationFunction=0)
  return graph.operator("CONCATENATION", tensors.same_scale(layer, inputs), tensors.output(layer), made)


@_write.register
def _(layer: layers.Shuffle, graph, inputs, tensors):
  h, w, c = layer.shape
  g = layer.groups
  x = _reshape(*inputs, (g, c // g), layer, tensors, rows=h * w)  # (n, h, w, c) -> (n*h*w, g, c/g)
  order = graph.constant(np.array([0, 2, 1], np.int32))
  output = tensors.output(layer, (c // g, g), rows=h * w)
  x = graph.operator("TRANSPOSE", [x, order], output, options("Transpose"))  # -> (n*h*w, c/g, g)
  return _reshape(x, layer.shape, layer, tensors)  # (n*h*w, c/g, g) -> (n, h, w, c)


@_write.register
def _(layer: layers.Flatten, graph, inputs, tensors):
  return _reshape(*inputs, layer.shape, layer, tensors)


def _reshape(x: int, shape: tuple[int, ...], layer: Layer, tensors: FloatTensors, rows: int = 1) -> int:
  """(n, ...) -> (n * rows, *shape), with the values of `layer`."""
  target = tensors.graph.constant(np.array([-1, *shape], np.int32))
  made = options("Reshape", newShape=[-1, *shape])
  return tensors.graph.operator("RESHAPE", [x, target], tensors.output(layer, shape, rows), made)


@_write.register
def _(layer: layers.LocalResponseNorm, graph, inputs, tensors):
  made = options(
    "LocalResponseNormalization", radius=layer.radius, bias=layer.offset, alpha=layer.scale, beta=layer.power
  )
  return graph.operator("LOCAL_RESPONSE_NORMALIZATION", inputs, tensors.output(layer), made)
