"""How values are represented in a LiteRT model with int8 kernels, and in one that computes in int8 throughout."""

from typing import ClassVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shufflenet_jax.deployment import int8
from shufflenet_jax.deployment.int8 import Affine8
from shufflenet_jax.deployment.layers import Layer
from shufflenet_jax.deployment.tflite_file import FloatTensors
from shufflenet_jax.deployment.tflite_graph import options


class Int8Kernels(FloatTensors):
  """Kernels in int8, from which the runtime makes float32 when it loads them; all computation is in float32."""

  versions: ClassVar = {"DEQUANTIZE": 5}  # with a scale for each channel

  def kernel_and_bias(self, layer, kernel, channel_axis):
    rounded = int8.round_kernel(kernel, channel_axis)
    q = self.graph.constant(rounded.values, _quantization(rounded.scales, 0, channel_axis))
    kernel = self.graph.derived(kernel.shape)
    self.graph.operator("DEQUANTIZE", [q], kernel, options("Dequantize"))
    return [kernel, self.graph.constant(layer.bias)]


class Int8Tensors(FloatTensors):
  """Everything in int8, biases in int32; only the logits become float32."""

  versions: ClassVar = {
    "ADD": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2, "FULLY_CONNECTED": 12,
    "LOGISTIC": 2, "MAX_POOL_2D": 2, "MEAN": 2, "MUL": 3, "PAD": 2, "RELU": 2, "TRANSPOSE": 2,
  }  # fmt: skip

  def __init__(self, batch: int | None, scales: dict[Layer, Affine8]):
    """
    Args:
      batch: see `FloatTensors`.
      scales: those of `int8.activation_scales`.
    """
    super().__init__(batch)
    self._scales = scales

  def output(self, layer, shape=None, rows=1):
    return self._tensor(layer.shape if shape is None else shape, self._scales[layer], rows)

  def _tensor(self, shape: tuple[int, ...], scale: Affine8, rows: int = 1) -> int:
    return self.graph.tensor(
      f"int8_{len(self.graph.tensors)}", shape, np.int8, _quantization([scale.scale], scale.zero_point), rows
    )

  def kernel_and_bias(self, layer, kernel, channel_axis):
    rounded = int8.round_kernel(kernel, channel_axis)
    scales = rounded.scales.astype(np.float64) * self._scales[layer.x].scale
    limits = np.iinfo(np.int32)
    bias = np.clip(np.rint(layer.bias / scales), limits.min, limits.max).astype(np.int32)
    return [
      self.graph.constant(rounded.values, _quantization(rounded.scales, 0, channel_axis)),
      self.graph.constant(bias, _quantization(scales, 0, 0)),
    ]

  def from_uint8(self, layer, x):
    self.graph.tensors[x].quantization = _quantization([1.0], 0)
    return self.graph.operator("QUANTIZE", [x], self.output(layer), options("Quantize"))

  def affine(self, layer, x):
    scale = int8.scale_of_range(layer.offset.min(), layer.offset.max())
    offset = np.clip(np.rint(layer.offset / scale.scale) + scale.zero_point, -128, 127).astype(np.int8)
    constant = self.graph.constant(offset, _quantization([scale.scale], scale.zero_point))
    made = options("Add", fusedActivationFunction=schema.ActivationFunctionType.NONE)
    return self.graph.operator("ADD", [x, constant], self.output(layer), made)

  def same_scale(self, layer, inputs):
    return [
      x if self._scales[before] == self._scales[layer] else self._requantized(before, layer, x)
      for before, x in zip(layer.inputs, inputs)
    ]

  def _requantized(self, before: Layer, layer: Layer, x: int) -> int:
    output = self._tensor(before.shape, self._scales[layer])
    return self.graph.operator("QUANTIZE", [x], output, options("Quantize"))

  def logits(self, x):
    shape = self.graph.tensors[x].shape[1:]
    output = self.graph.tensor("logits", tuple(shape))
    return self.graph.operator("DEQUANTIZE", [x], output, options("Dequantize"))


def _quantization(scales, zero_point: int, axis: int = 0):
  made = schema.QuantizationParametersT()
  made.scale, made.zeroPoint = list(map(float, scales)), [zero_point] * len(scales)
  made.quantizedDimension = axis
  return made
