"""The networks of Table 8 with random weights, as plain layers and as XLA runs them.

The paper does not say how AlexNet, whose first fully connected layer takes a map of 6x6, is applied to larger pictures.
If that layer grew with the map, it would have 860 million weights at 720x1280, 3.4 GB, more than a .tflite or .onnx
file can hold. Here the map is averaged down to 6x6 first, so that AlexNet keeps its weights at every size, as the other
networks do.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.deployed import table8
from benchmarks.random_values import random_values
from configs import imagenet
from shufflenet_jax import tasks
from shufflenet_jax.counting.multiply_adds import count_multiply_adds
from shufflenet_jax.deployment import evaluate, layers, network, trace
from shufflenet_jax.deployment.description import Description
from shufflenet_jax.deployment.layers import AveragePool, Conv, Flatten, Input, Layer, LocalResponseNorm, Pool
from shufflenet_jax.models import build

_TRAINED = 224  # pixels a side, of the pictures that AlexNet's weights fit


@dataclasses.dataclass(frozen=True)
class Network:
  """A network for pictures of one size.

  Attributes:
    name: one of `table8.NETWORKS`.
    size: height and width of the pictures, pixels.
    output: the network as plain layers.
    to_export: the same for exporters.
    xla: the same for XLA: uint8 pictures (n, h, w, 3) -> logits, float32 (n, classes).
    multiply_adds: for one picture.
  """

  name: str
  size: tuple[int, int]
  output: Layer
  to_export: network.Network
  xla: Callable[[jax.Array], jax.Array]
  multiply_adds: int


def make(name: str, size: tuple[int, int]) -> Network:
  """The network of that name in `table8.NETWORKS`, for pictures of that height and width."""
  row = table8.NETWORKS[name]
  config = imagenet.get_config(row.arguments)
  config.model.dtype = "float32"
  variables = _variables(row.arguments)
  reference = functools.partial(network.forward_of(config), variables)
  if config.model.network == "alexnet":
    output = resized(trace.layers(reference, _TRAINED, _TRAINED), *size)
    output = output if row.response_norm else without_response_norm(output)
    reference = xla = functools.partial(_values, output)
  else:
    output = trace.layers(reference, *size)
    xla = functools.partial(tasks.build(build.network(config.model), config).forward, variables)
  pictures = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
  return Network(
    name=name,
    size=size,
    output=output,
    to_export=network.Network(reference, _description(name, size)),
    xla=xla,
    multiply_adds=sum(count_multiply_adds(reference, pictures).values()),
  )


def _values(output: Layer, images: jax.Array) -> jax.Array:
  return evaluate.values(output, images)[output]


def _description(name: str, size: tuple[int, int]) -> Description:
  height, width = size
  unused = {"classes": (), "resize": height, "antialias": False, "step": 0, "config": {}}
  return Description(network=name, height=height, width=width, **unused)


@functools.cache  # for AlexNet with and without response normalisation
def _variables(arguments: str):
  return random_values(build.variable_shapes(imagenet.get_config(arguments).model, _TRAINED))


def without_response_norm(output: Layer) -> Layer:
  """The same network without local response normalisation."""

  def without(_, layer: Layer) -> Layer:
    return layer.inputs[0] if isinstance(layer, LocalResponseNorm) else layer

  return layers.rebuilt(output, without)[output]


def resized(output: Layer, height: int, width: int) -> Layer:
  """The same network for pictures of another size; a map is averaged down to its former size before it is flattened.

  It has to be a chain of layers, each of which has one input, as AlexNet is.
  """

  def at_size(before: Layer, layer: Layer) -> Layer:
    if isinstance(layer, Input):
      return Input((), (height, width, 3))
    if isinstance(layer, Flatten):
      return Flatten((averaged(layer.x, *before.x.shape[:2]),), layer.shape)
    if isinstance(layer, Conv | Pool):
      return dataclasses.replace(layer, shape=(*_sides(layer, layer.x.shape), layer.shape[-1]))
    return layer if len(layer.shape) == 1 else dataclasses.replace(layer, shape=layer.x.shape)

  return layers.rebuilt(output, at_size)[output]


def _sides(layer: Conv | Pool, shape: tuple[int, ...]) -> list[int]:
  window = layer.kernel.shape if isinstance(layer, Conv) else layer.window
  return [
    (side + sum(padding) - across) // stride + 1
    for side, padding, across, stride in zip(shape, layer.padding, window, layer.stride)
  ]


def averaged(x: Layer, height: int, width: int) -> Layer:
  """The map averaged down to that size over windows of one size, which cover it and may overlap."""
  if x.shape[:2] == (height, width):
    return x
  stride = (x.shape[0] // height, x.shape[1] // width)
  window = tuple(side - (to - 1) * step for side, to, step in zip(x.shape, (height, width), stride))
  return AveragePool((x,), (height, width, x.shape[-1]), window=window, stride=stride, padding=((0, 0), (0, 0)))
