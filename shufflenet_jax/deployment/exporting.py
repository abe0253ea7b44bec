"""Writes a deployed file, once it has been run and compared with the checkpoint's own network."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from shufflenet_jax import storage
from shufflenet_jax.deployment import algebra, calibration, formats, runtimes
from shufflenet_jax.deployment import int8 as rounding
from shufflenet_jax.deployment.layers import Layer
from shufflenet_jax.deployment.network import Network
from shufflenet_jax.errors import RunFailed, UserError

# The largest accepted difference of a logit from the checkpoint's, relative to the largest logit. Rounding causes about
# 1e-6, so more than this is a fault.
TOLERANCE = 1e-4
_TRIALS = (1, 3)  # batch sizes, if a file takes any

Show = Callable[[str, int, int], None]  # what is being done, the number of pictures done, and their total number


@dataclasses.dataclass(frozen=True)
class Options:
  """How a file is written.

  Attributes:
    batch: the only batch size that it takes; None for any.
    dense: whether grouped convolutions become dense ones, which absorb the shuffle.
    int8: "weights" or "full"; "" for float32.
    calibrate: a folder of pictures, for int8.
  """

  batch: int | None = None
  dense: bool = False
  int8: str = ""
  calibrate: str = ""


def check(to: str, options: Options) -> None:
  """Checks what can be known before a checkpoint is read.

  Raises:
    UserError: an unknown suffix, or options that do not fit together.
  """
  suffix = runtimes.suffix_of(to, "--to")
  if storage.is_folder(storage.normalize(to, "--to=")):
    raise UserError(f"--to={to} is a folder; name a file")
  if options.dense and suffix == ".stablehlo":
    raise UserError(f"--shuffle=dense is for .tflite and .onnx, not for --to={to}")
  if options.int8 and suffix not in (known := formats.INT8_SUFFIXES[options.int8]):
    raise UserError(f"--int8={options.int8} is for {' and '.join(known)}, not for --to={to}")
  if options.int8 and not options.calibrate:
    raise UserError(f"--int8={options.int8} needs --calibrate=FOLDER, with a few hundred pictures")
  if options.calibrate and not options.int8:
    raise UserError(f"--calibrate={options.calibrate} is for --int8=weights or --int8=full")


def write(network: Network, to: str, options: Options, show: Show = lambda *_: None) -> tuple[int, str]:
  """Writes a network to a file whose suffix chooses the format.

  Args:
    network: what to write.
    to: the path, local or in a bucket.
    options: see `Options`.
    show: is called while pictures are computed.

  Returns:
    The file's size in bytes, and in words how its answers compare with the checkpoint's.

  Raises:
    UserError: the options do not fit, the network has an operation that cannot be exported, the package for the format
      is not installed, or the calibration pictures are too few or cannot be decoded.
    RunFailed: the file does not give the checkpoint's logits. It is not written.
    storage.StorageError: it cannot be written. Nothing is left there.
  """
  check(to, options)
  path, suffix = storage.normalize(to, "--to="), runtimes.suffix_of(to, "--to")
  storage.check_writable(storage.parent(path), 0)  # before minutes of calibration
  pictures = calibration.find(options.calibrate, network.description.classes) if options.int8 else None
  output = network.layers() if suffix != ".stablehlo" else None
  if options.dense:
    output = algebra.without_groups(output)
  if pictures:
    content = _encode_int8(network, output, suffix, options, pictures, show)
    written = runtimes.loaded(suffix, content)
    in_float = jax.jit(network.function)
    result = str(calibration.compare(in_float, written, pictures, written.description, show))
  else:
    content = formats.encode(network, output, suffix, options.batch)
    result = _compare_with_checkpoint(network, runtimes.loaded(suffix, content), to, options.batch)
  storage.write_bytes(path, content)
  return len(content), result


def _encode_int8(
  network: Network, output: Layer, suffix: str, options: Options, pictures: calibration.Pictures, show: Show
) -> bytes:
  if options.int8 == "full":
    rounding.check_full(output)
    # LiteRT's XNNPACK delegate does not run average pools in int8, which would split the graph into several parts.
    output = algebra.without_average_pools(output)
  statistics = calibration.statistics(output, pictures.calibration, network.description, show)
  output, statistics = rounding.with_rounded_kernels(output, statistics)
  return formats.encode(network, output, suffix, options.batch, options.int8, statistics)


def _compare_with_checkpoint(network: Network, written: runtimes.Runtime, to: str, batch: int | None) -> str:
  worst = np.max([difference(network, written, images) for images in _trial_pictures(network, batch)])  # NaN, if any is
  if not worst <= TOLERANCE:
    raise RunFailed(
      f"--to={to}: its logits differ from the checkpoint's by {worst:.1e} of the largest, more than {TOLERANCE:.0e};"
      " the file was not written"
    )
  return f"its logits differ from the checkpoint's by at most {worst:.1e} of the largest"


def _trial_pictures(network: Network, batch: int | None) -> Iterator[np.ndarray]:
  """Batches of pictures to compare on: noise, uint8 (n, h, w, 3)."""
  random = np.random.default_rng(0)
  for n in (batch,) if batch else _TRIALS:
    yield random.integers(0, 256, (n, network.description.height, network.description.width, 3), np.uint8)


def difference(network: Network, written: runtimes.Runtime, images: np.ndarray) -> float:
  """The largest difference between two networks' logits, as a fraction of the largest logit."""
  expected = np.asarray(jax.jit(network.function)(images))
  largest = max(np.abs(expected).max(), np.finfo(np.float32).tiny)  # all of them may be zero
  return float(np.abs(written(images) - expected).max() / largest)
