"""The bytes of a deployed file in each format, with float32 or int8 kernels, or all in int8."""

import dataclasses

from shufflenet_jax.deployment import description, runtimes
from shufflenet_jax.deployment.int8 import Statistics
from shufflenet_jax.deployment.layers import Layer
from shufflenet_jax.deployment.network import Network

# What `int8` may be, and in which formats. ONNX would need a pair of nodes around every operation for "full", which
# runtimes fuse or not as they like.
INT8_SUFFIXES = {"weights": (".tflite", ".onnx"), "full": (".tflite",)}


def encode(
  network: Network,
  output: Layer,
  suffix: str,
  batch: int | None,
  int8: str = "",
  statistics: dict[Layer, Statistics] | None = None,
) -> bytes:
  """The bytes of a file.

  Args:
    network: its description goes into the file; for .stablehlo, its function does as well.
    output: the network as plain layers, for the other formats.
    suffix: one of `runtimes.SUFFIXES`.
    batch: the only batch size that the file takes; None for any.
    int8: "" for float32, "weights" for int8 kernels, "full" for int8 throughout.
    statistics: of the layers, for "full".

  Raises:
    UserError: the package for the format is not installed.
  """
  described = dataclasses.replace(network.description, batch=batch)
  try:
    if suffix == ".onnx":
      from shufflenet_jax.deployment import onnx_file

      weight = onnx_file.int8_weight if int8 else onnx_file.Graph.constant
      return onnx_file.encode(output, batch, {description.KEY: described.to_json()}, weight)
    if suffix == ".tflite":
      return runtimes.with_archive(_tflite(output, batch, int8, statistics), described)
    from shufflenet_jax.deployment import stablehlo_file

    content = stablehlo_file.encode(network.function, described.height, described.width, batch)
    return runtimes.with_archive(content, described)
  except ModuleNotFoundError as error:
    raise runtimes.missing(error) from None


def _tflite(output: Layer, batch: int | None, int8: str, statistics: dict[Layer, Statistics] | None) -> bytes:
  from shufflenet_jax.deployment import tflite_file, tflite_int8
  from shufflenet_jax.deployment.int8 import activation_scales

  if int8 == "full":
    return tflite_file.encode(output, tflite_int8.Int8Tensors(batch, activation_scales(output, statistics)))
  return tflite_file.encode(output, (tflite_int8.Int8Kernels if int8 else tflite_file.FloatTensors)(batch))
