"""A network for inference as a graph of plain layers: what `trace` makes of a network, and what every writer writes.

A layer is a value: its inputs are layers too, and it never changes. Shapes leave out the batch: (h, w, c) or (c,).
Outputs are float32, except those of `Input`. Parameters may be float64, which is how `algebra` merges batch norms into
them; writers round them to float32 once.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
  """Any layer. Compared by identity, as two layers with equal fields are still two.

  Attributes:
    inputs: the layers whose outputs this one takes.
    shape: of its output without the batch: (h, w, c) or (c,).
  """

  inputs: tuple["Layer", ...]
  shape: tuple[int, ...]

  @property
  def x(self) -> "Layer":
    """The first input."""
    return self.inputs[0]


class Input(Layer):
  """The pictures: uint8 RGB (h, w, 3). No inputs."""


class Float(Layer):
  """uint8 -> float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Layer):
  """`scale * x + offset` of each channel: what could not be merged into a convolution.

  Attributes:
    scale, offset: (c,).
  """

  scale: np.ndarray
  offset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Layer):
  """Convolution with zero padding and a bias, ReLU included if `relu`.

  Attributes:
    kernel: HWIO (k, k, c_in / groups, c_out). Depthwise if there are as many groups as input and output
      channels.
    bias: (c_out,).
    stride: vertical and horizontal.
    padding: zeros around the input.
    groups: channel groups.
    relu: whether ReLU follows.
  """

  kernel: np.ndarray
  bias: np.ndarray
  stride: tuple[int, int]
  padding: Padding
  groups: int
  relu: bool = False

  @property
  def depthwise(self) -> bool:
    """Whether each channel has a kernel of its own."""
    return 1 < self.groups == self.x.shape[-1] == self.shape[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(Layer):
  """Fully connected: (c_in,) -> (c_out,), ReLU included if `relu`.

  Attributes:
    kernel: (c_in, c_out).
    bias: (c_out,).
    relu: whether ReLU follows.
  """

  kernel: np.ndarray
  bias: np.ndarray
  relu: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Pool(Layer):
  """A pool over windows.

  Attributes:
    window, stride: vertical and horizontal.
    padding: see the subclasses.
  """

  window: tuple[int, int]
  stride: tuple[int, int]
  padding: Padding


class MaxPool(Pool):
  """The largest value of each window; padding is never the largest."""


class AveragePool(Pool):
  """The mean of each window; padding counts as zeros."""


class Mean(Layer):
  """The mean over all positions: (h, w, c) -> (c,)."""


class Relu(Layer):
  """ReLU that could not be merged into the layer before it."""


class Sigmoid(Layer):
  """The logistic function."""


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Layer):
  """The sum of two layers, ReLU included if `relu`."""

  relu: bool = False


class Gate(Layer):
  """The first input, (h, w, c), times the second, (c,), at every position: squeeze-and-excitation."""


class Concat(Layer):
  """The channels of all inputs, one after the other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shuffle(Layer):
  """The channel shuffle: channel `i * (c // groups) + j` moves to `j * groups + i`.

  Attributes:
    groups: divides the channels; neither 1 nor as many as the channels.
  """

  groups: int


class Flatten(Layer):
  """(h, w, c) -> (h*w*c,)."""


@dataclasses.dataclass(frozen=True, eq=False)
class LocalResponseNorm(Layer):
  """x / (offset + scale * sum of squares over 2 * radius + 1 neighbouring channels) ** power (AlexNet).

  Attributes:
    radius, offset, scale, power: see above.
  """

  radius: int
  offset: float
  scale: float
  power: float


_NEVER_NEGATIVE: tuple[type[Layer], ...] = (Input, Float, Relu, Sigmoid)
_KEEP_THE_SIGN: tuple[type[Layer], ...] = (
  MaxPool,
  AveragePool,
  Mean,
  Gate,
  Concat,
  Shuffle,
  Flatten,
  LocalResponseNorm,
)


def never_negative(layer: Layer) -> bool:
  """Whether no value of the layer's output can be below zero, as far as its kind tells."""
  if isinstance(layer, Conv | Dense | Add) and layer.relu:
    return True
  if isinstance(layer, (Add, *_KEEP_THE_SIGN)):
    return all(map(never_negative, layer.inputs))
  return isinstance(layer, _NEVER_NEGATIVE)


def in_order(output: Layer) -> list[Layer]:
  """All layers that an output depends on, each after its inputs, the output last."""
  done: dict[Layer, None] = {}

  def visit(layer: Layer) -> None:
    for x in layer.inputs:
      if x not in done:
        visit(x)
    done[layer] = None

  visit(output)
  return list(done)


def rebuilt(output: Layer, change: Callable[[Layer, Layer], Layer]) -> dict[Layer, Layer]:
  """A network with some layers changed: each layer -> the one in its place.

  Args:
    output: the network.
    change: called with each layer and with the same layer on its new inputs; returns the one to use.
  """
  new: dict[Layer, Layer] = {}
  for layer in in_order(output):
    new[layer] = change(layer, dataclasses.replace(layer, inputs=tuple(new[x] for x in layer.inputs)))
  return new
