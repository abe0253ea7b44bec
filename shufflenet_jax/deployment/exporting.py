"""Writes a deployed file, and runs it against the checkpoint's own network before it gets its name."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from shufflenet_jax import storage
from shufflenet_jax.deployment import algebra, description, runtimes
from shufflenet_jax.deployment.network import Network
from shufflenet_jax.errors import RunFailed

# The largest difference of a logit from the checkpoint's, as a fraction of the largest logit. Rounding makes about
# 1e-6; more than this is a fault.
TOLERANCE = 1e-4
_TRIALS = (1, 3)  # batch sizes, if a file takes any


@dataclasses.dataclass(frozen=True)
class Options:
  """How a file is written.

  Attributes:
    batch: the only batch size that it takes; None for any.
    dense: whether grouped convolutions become dense ones, which absorb the shuffle.
  """

  batch: int | None = None
  dense: bool = False


@dataclasses.dataclass(frozen=True)
class Written:
  """A file that was written.

  Attributes:
    size: bytes.
    difference: the largest difference of a logit from the checkpoint's, as a fraction of the largest logit.
  """

  size: int
  difference: float


def write(network: Network, to: str, options: Options) -> Written:
  """Writes a network to a file whose suffix chooses the format.

  Raises:
    UserError: the suffix is none of `runtimes.SUFFIXES`, the network has an operation that cannot be exported, or the
      package for the format is not installed.
    RunFailed: the file does not give the checkpoint's logits. It is not kept.
    storage.StorageError: it cannot be written. Nothing is left there.
  """
  path = storage.normalize(to, "--to=")
  suffix = runtimes.suffix_of(to, "--to")
  content = encode(network, suffix, options)
  with storage.new_file(path) as partial:
    with open(partial, "wb") as file:
      file.write(content)
    with open(partial, "rb") as file:
      written = runtimes.loaded(suffix, file.read())
    worst = max(difference(network, written, images) for images in _trial_pictures(network, options.batch))
    if not worst <= TOLERANCE:
      raise RunFailed(
        f"--to={to}: its logits differ from the checkpoint's by {worst:.1e} of the largest, more than {TOLERANCE:.0e}; "
        "the file was not kept"
      )
  return Written(len(content), worst)


def encode(network: Network, suffix: str, options: Options) -> bytes:
  """The bytes of a file of the format with that suffix."""
  batch = options.batch
  described = dataclasses.replace(network.description, batch=batch)
  try:
    if suffix == ".stablehlo":
      from shufflenet_jax.deployment import stablehlo_file

      content = stablehlo_file.encode(network.function, described.height, described.width, batch)
      return runtimes.with_archive(content, described)
    output = network.layers()
    if options.dense:
      output = algebra.without_groups(output)
    if suffix == ".onnx":
      from shufflenet_jax.deployment import onnx_file

      return onnx_file.encode(output, batch, {description.KEY: described.to_json()})
    from shufflenet_jax.deployment import tflite_file

    return runtimes.with_archive(tflite_file.encode(output, batch), described)
  except ModuleNotFoundError as error:
    raise runtimes.missing(error) from None


def _trial_pictures(network: Network, batch: int | None) -> Iterator[np.ndarray]:
  """Batches of pictures to compare on: noise, uint8 (n, h, w, 3)."""
  random = np.random.default_rng(0)
  for n in (batch,) if batch else _TRIALS:
    yield random.integers(0, 256, (n, network.description.height, network.description.width, 3), np.uint8)


def difference(network: Network, written: runtimes.Runtime, images: np.ndarray) -> float:
  """The largest difference between two networks' logits, as a fraction of the largest logit."""
  expected = np.asarray(jax.jit(network.function)(images))
  return float(np.abs(written(images) - expected).max() / np.abs(expected).max())
