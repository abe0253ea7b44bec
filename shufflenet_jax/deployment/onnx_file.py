"""Writes plain layers as an ONNX model (opset 17), which onnxruntime, OpenVINO, TensorRT, ncnn and browsers read.

Activations are NCHW, as these runtimes want them; the pictures come in as NHWC, as cameras and decoders give them. No
tensor has more than four dimensions, and every target of a Reshape is a constant with one -1, the batch.
"""

import functools
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shufflenet_jax.deployment import int8, layers
from shufflenet_jax.deployment.layers import Layer, Padding

OPSET, IR_VERSION = 17, 8  # what runtimes from 2022 on read


class Graph:
  """The nodes and constants of a model that is being written."""

  def __init__(self):
    self.nodes, self.constants = [], []

  def constant(self, array: np.ndarray) -> str:
    """Adds a constant, as float32 if it has floating point; returns its name."""
    array = np.asarray(array)
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    name = f"constant{len(self.constants)}"
    self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name

  def node(self, kind: str, *inputs: str, **attributes) -> str:
    """Adds a node with one output; returns the output's name."""
    name = f"{kind.lower()}{len(self.nodes)}"
    self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
    return name

  def reshape(self, x: str, *shape: int) -> str:
    """Adds a Reshape to a constant shape, in which -1 is the batch."""
    return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))


def int8_weight(graph: Graph, kernel: np.ndarray) -> str:
  """Adds a kernel as int8, from which the runtime makes float32 when it loads the model."""
  rounded = int8.round_kernel(kernel, 0)
  zeros = graph.constant(np.zeros(len(rounded.scales), np.int8))
  q, scales = graph.constant(rounded.values), graph.constant(rounded.scales)
  return graph.node("DequantizeLinear", q, scales, zeros, axis=0)


def encode(
  output: Layer,
  batch: int | None,
  metadata: dict[str, str],
  weight: Callable[[Graph, np.ndarray], str] = Graph.constant,
) -> bytes:
  """The model's bytes: `images`, uint8 (n, h, w, 3) -> `logits`, float32 (n, classes).

  Args:
    output: the network.
    batch: n; None for any.
    metadata: texts that the file carries in its `metadata_props`.
    weight: adds a kernel, with the output channels first, and returns its name.
  """
  graph, names = Graph(), {}
  order = layers.in_order(output)
  for layer in order:
    names[layer] = _write(layer, graph, [names[x] for x in layer.inputs], weight)
  graph.nodes.append(helper.make_node("Identity", [names[output]], ["logits"]))
  model = helper.make_model(
    helper.make_graph(
      graph.nodes,
      "network",
      [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch or "batch", *order[0].shape])],
      [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "batch", *output.shape])],
      graph.constants,
    ),
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="shufflenet_jax",
  )
  helper.set_model_props(model, metadata)
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString()


@functools.singledispatch
def _write(layer: Layer, graph: Graph, inputs: list[str], weight: Callable) -> str:
  """Adds the nodes of a layer; returns the name of its output."""
  raise NotImplementedError(type(layer).__name__)


def _relu(graph: Graph, x: str, layer) -> str:
  return graph.node("Relu", x) if layer.relu else x


def _pads(padding: Padding) -> list[int]:
  (top, bottom), (left, right) = padding
  return [top, left, bottom, right]


@_write.register
def _(layer: layers.Input, graph, inputs, weight):
  return "images"


@_write.register
def _(layer: layers.Float, graph, inputs, weight):
  # uint8 (n, h, w, c) -> float32 (n, c, h, w)
  return graph.node("Transpose", graph.node("Cast", *inputs, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])


@_write.register
def _(layer: layers.Affine, graph, inputs, weight):
  (x,) = inputs
  sides = (-1, 1, 1) if len(layer.shape) == 3 else (-1,)
  if np.any(layer.scale != 1):
    x = graph.node("Mul", x, graph.constant(layer.scale.reshape(sides)))  # (c,) -> (c, 1, 1)
  if layer.offset.any():
    x = graph.node("Add", x, graph.constant(layer.offset.reshape(sides)))  # (c,) -> (c, 1, 1)
  return x


@_write.register
def _(layer: layers.Conv, graph, inputs, weight):
  kernel = layer.kernel.transpose(3, 2, 0, 1)  # (k, k, c_in/g, c_out) -> (c_out, c_in/g, k, k)
  x = graph.node(
    "Conv",
    *inputs,
    weight(graph, kernel),
    graph.constant(layer.bias),
    kernel_shape=kernel.shape[2:],
    strides=layer.stride,
    pads=_pads(layer.padding),
    group=layer.groups,
  )
  return _relu(graph, x, layer)


@_write.register
def _(layer: layers.Dense, graph, inputs, weight):
  kernel = layer.kernel.T  # (c_in, c_out) -> (c_out, c_in)
  if isinstance(layer.x, layers.Flatten):  # which is in the order (c, h, w) here, and (h, w, c) in the network
    h, w, c = layer.x.x.shape
    kernel = kernel.reshape(-1, h, w, c).transpose(0, 3, 1, 2)  # (c_out, h*w*c) -> (c_out, h, w, c) -> (c_out, c, h, w)
    kernel = kernel.reshape(len(kernel), -1)  # (c_out, c, h, w) -> (c_out, c*h*w)
  return _relu(graph, graph.node("Gemm", *inputs, weight(graph, kernel), graph.constant(layer.bias), transB=1), layer)


@_write.register
def _(layer: layers.MaxPool, graph, inputs, weight):
  return graph.node("MaxPool", *inputs, kernel_shape=layer.window, strides=layer.stride, pads=_pads(layer.padding))


@_write.register
def _(layer: layers.AveragePool, graph, inputs, weight):
  return graph.node(
    "AveragePool",
    *inputs,
    kernel_shape=layer.window,
    strides=layer.stride,
    pads=_pads(layer.padding),
    count_include_pad=1,
  )


@_write.register
def _(layer: layers.Mean, graph, inputs, weight):
  return graph.node("Flatten", graph.node("GlobalAveragePool", *inputs))  # (n, c, h, w) -> (n, c, 1, 1) -> (n, c)


@_write.register
def _(layer: layers.Relu, graph, inputs, weight):
  return graph.node("Relu", *inputs)


@_write.register
def _(layer: layers.Sigmoid, graph, inputs, weight):
  return graph.node("Sigmoid", *inputs)


@_write.register
def _(layer: layers.Add, graph, inputs, weight):
  return _relu(graph, graph.node("Add", *inputs), layer)


@_write.register
def _(layer: layers.Gate, graph, inputs, weight):
  x, gate = inputs
  return graph.node("Mul", x, graph.reshape(gate, -1, layer.shape[-1], 1, 1))  # (n, c) -> (n, c, 1, 1)


@_write.register
def _(layer: layers.Concat, graph, inputs, weight):
  return graph.node("Concat", *inputs, axis=1)


@_write.register
def _(layer: layers.Shuffle, graph, inputs, weight):
  h, w, c = layer.shape
  x = graph.reshape(*inputs, -1, layer.groups, c // layer.groups, h * w)  # (n, c, h, w) -> (n, g, c/g, h*w)
  x = graph.node("Transpose", x, perm=[0, 2, 1, 3])  # (n, g, c/g, h*w) -> (n, c/g, g, h*w)
  return graph.reshape(x, -1, c, h, w)  # (n, c/g, g, h*w) -> (n, c, h, w)


@_write.register
def _(layer: layers.Flatten, graph, inputs, weight):
  return graph.node("Flatten", *inputs)  # (n, c, h, w) -> (n, c*h*w)


@_write.register
def _(layer: layers.LocalResponseNorm, graph, inputs, weight):
  size = 2 * layer.radius + 1  # ONNX divides the sum by it
  return graph.node("LRN", *inputs, size=size, alpha=layer.scale * size, beta=layer.power, bias=layer.offset)
