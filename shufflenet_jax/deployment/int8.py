"""Eight-bit integers in the place of float32: kernels, and with ranges from calibration also activations.

A kernel has a scale for each output channel, and no offset: w is about `scale * q` with q from -127 to 127. Rounding a
kernel shifts the mean of each output by (rounding error * mean input), padding ignored. The bias is corrected by that
amount; most of the accuracy depends on this correction (arXiv 1906.04721, section 4.2).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from shufflenet_jax.deployment import layers
from shufflenet_jax.deployment.layers import Layer
from shufflenet_jax.errors import UserError

LARGEST = 127


class Rounded(NamedTuple):
  """A rounded kernel.

  Attributes:
    values: int8, in the kernel's shape.
    scales: float32, one for each output channel.
  """

  values: np.ndarray
  scales: np.ndarray


class Affine8(NamedTuple):
  """What the int8 values q of a tensor mean: `scale * (q - zero_point)`."""

  scale: float
  zero_point: int


@dataclasses.dataclass(frozen=True)
class Statistics:
  """What calibration saw of a layer's output.

  Attributes:
    mean: of each channel, (c,).
    low, high: ends of its range; see `calibration.statistics`.
  """

  mean: np.ndarray
  low: float
  high: float


def round_kernel(kernel: np.ndarray, channel_axis: int) -> Rounded:
  """A kernel as int8. Rounding a rounded kernel changes nothing.

  Args:
    kernel: any shape.
    channel_axis: its axis of output channels.
  """
  others = tuple(axis for axis in range(kernel.ndim) if axis != channel_axis % kernel.ndim)
  largest = np.abs(kernel).max(others)
  scales = (np.where(largest > 0, largest, 1) / LARGEST).astype(np.float32)
  values = np.rint(kernel / np.expand_dims(scales, others))
  return Rounded(np.clip(values, -LARGEST, LARGEST).astype(np.int8), scales)


def check_full(output: Layer) -> None:
  """Checks that LiteRT can compute every layer of a network in int8.

  Raises:
    UserError: it cannot. The message names the layer.
  """
  for layer in layers.in_order(output):
    pads_negative = isinstance(layer, layers.MaxPool) and np.any(layer.padding) and not layers.never_negative(layer.x)
    scales = isinstance(layer, layers.Affine) and np.any(layer.scale != 1)
    if isinstance(layer, layers.LocalResponseNorm) or pads_negative or scales:
      raise UserError(
        "--int8=full is not possible: the network has a layer that LiteRT cannot compute in int8"
        f" ({type(layer).__name__}); use --int8=weights"
      )


def with_rounded_kernels(output: Layer, statistics: dict[Layer, Statistics]) -> tuple[Layer, dict[Layer, Statistics]]:
  """The network with each kernel rounded to what int8 can express, but still in floating point; biases are corrected.

  Returns:
    The network, and the statistics of its layers.
  """

  def change(layer: Layer, new: Layer) -> Layer:
    if not isinstance(layer, layers.Conv | layers.Dense):
      return new
    rounded = round_kernel(layer.kernel, -1)
    kernel = rounded.values * rounded.scales.astype(np.float64)
    bias = layer.bias - _mean_output(layer, kernel - layer.kernel, statistics[layer.x].mean)
    return dataclasses.replace(new, kernel=kernel, bias=bias)

  replaced = layers.rebuilt(output, change)
  return replaced[output], {replaced[layer]: known for layer, known in statistics.items()}


def _mean_output(layer: layers.Conv | layers.Dense, kernel: np.ndarray, mean: np.ndarray) -> np.ndarray:
  """The mean output, (c_out,), of a kernel of this layer for inputs with this mean of each channel, (c_in,)."""
  if isinstance(layer, layers.Dense):
    return mean @ kernel
  summed = kernel.sum((0, 1))  # (k, k, c_in/g, c_out) -> (c_in/g, c_out)
  by_group = summed.reshape(len(summed), layer.groups, -1)  # (c_in/g, c_out) -> (c_in/g, g, c_out/g)
  means = mean.reshape(layer.groups, -1)  # (c_in,) -> (g, c_in/g)
  return np.einsum("igo,gi->go", by_group, means).ravel()  # (g, c_out/g) -> (c_out,)


# Layers whose output has the scale of their input.
_KEEP_THE_SCALE = (layers.MaxPool, layers.Shuffle, layers.Flatten, layers.Relu)


def activation_scales(output: Layer, statistics: dict[Layer, Statistics]) -> dict[Layer, Affine8]:
  """The scale and zero point of each layer's output, except the pictures."""
  order = layers.in_order(output)[1:]
  scales: dict[Layer, Affine8] = {}
  for layer in order:
    if isinstance(layer, layers.Float):
      scales[layer] = Affine8(1.0, -128)  # the pixels themselves
    elif isinstance(layer, layers.Sigmoid):
      scales[layer] = Affine8(1 / 256, -128)  # what LiteRT's kernel requires
    elif not isinstance(layer, _KEEP_THE_SCALE):
      scales[layer] = scale_of_range(statistics[layer].low, statistics[layer].high)
    if isinstance(layer, layers.Concat):  # convolutions before it use its scale, which saves a conversion
      scales.update((x, scales[layer]) for x in layer.inputs if isinstance(x, layers.Conv))
  for layer in order:
    if isinstance(layer, _KEEP_THE_SCALE):
      scales[layer] = scales[layer.x]
  return scales


def scale_of_range(low: float, high: float) -> Affine8:
  """The finest steps in which int8 can express the values from `low` to `high`, and zero exactly."""
  low, high = min(low, 0.0), max(high, 0.0)  # zero must be exact: padding is zeros
  scale = (high - low) / 255 or 1.0
  return Affine8(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))
