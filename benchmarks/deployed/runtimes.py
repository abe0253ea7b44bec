"""The runtimes that Table 8 is measured in: each loads a network, and runs it on one thread.

What is timed is the same for all: from a picture as decoders give it, uint8 (1, h, w, 3), to the logits, float32
(1, 1000), both NumPy arrays. Only `generic-scaled` takes a picture that is scaled and transposed already.

Large packages are imported when a network is loaded, so that the command's --help answers at once.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import io
import pathlib
import subprocess
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.deployed import table8

if TYPE_CHECKING:
  from benchmarks.deployed.networks import Network

Function = Callable[[np.ndarray], np.ndarray]  # uint8 (1, h, w, 3) -> logits


@dataclasses.dataclass(frozen=True)
class Runtime:
  """A way to run networks.

  Attributes:
    title: its name in reports.
    load: makes a network ready to run on one thread; None if it cannot run that network at that size.
    packages: the packages that it needs. Each is imported and distributed under the same name, apart from `-` and `_`.
    generic: whether it runs another implementation of a network, with other weights.
  """

  title: str
  load: Callable[["Network"], Function | None]
  packages: tuple[str, ...]
  generic: bool = False

  @property
  def missing(self) -> list[str]:
    """The packages that are not installed."""
    return [name for name in self.packages if not importlib.util.find_spec(name)]

  @property
  def versions(self) -> dict[str, str]:
    """Those of its packages."""
    return {name: importlib.metadata.version(name) for name in self.packages}


def file_of(network: "Network", suffix: str) -> bytes:
  """The file that the package writes of a network, for one picture at a time; the suffix chooses the format."""
  from shufflenet_jax.deployment import formats

  return formats.encode(network.to_export, network.output, suffix, batch=1)


def _of_the_package(network: "Network", suffix: str) -> Function:
  from shufflenet_jax.deployment import runtimes

  return runtimes.loaded(suffix, file_of(network, suffix), threads=1)


def _generic(network: "Network", whole: bool) -> Function | None:
  from configs import imagenet

  config = imagenet.get_config(table8.NETWORKS[network.name].arguments)
  if config.model.network != "shufflenet_v1":
    return None
  from benchmarks.deployed import generic

  if network.size != generic.SIZE:
    return None
  return generic.load(config.model.groups, config.model.scale, (config.data.mean, config.data.std) if whole else None)


def _openvino(network: "Network") -> Function:
  import openvino

  core = openvino.Core()
  options = {
    "INFERENCE_NUM_THREADS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # some processors would compute in bfloat16
    "ENABLE_CPU_PINNING": False,  # the process is pinned
  }
  compiled = core.compile_model(core.read_model(io.BytesIO(file_of(network, ".onnx"))), "CPU", options)
  request, output = compiled.create_infer_request(), compiled.output(0)
  return lambda images: request.infer([images])[output]


def _ncnn(network: "Network") -> Function:
  import ncnn
  import onnx
  import pnnx

  model = onnx.load_from_string(file_of(network, ".onnx"))
  model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT  # ncnn has no integers and no casts
  net = ncnn.Net()
  net.opt.num_threads = 1
  net.opt.use_bf16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_storage = False
  with tempfile.TemporaryDirectory() as folder:
    stem = pathlib.Path(folder, "network")
    onnx.save(model, stem.with_suffix(".onnx"))
    command = [pnnx.EXEC_PATH, stem.with_suffix(".onnx"), "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    if net.load_param(f"{stem}.ncnn.param") or net.load_model(f"{stem}.ncnn.bin"):
      raise RuntimeError(f"ncnn refuses {network.name} as pnnx converts it")

  def run(images: np.ndarray) -> np.ndarray:
    picture = images[0].astype(np.float32)  # a Mat does not keep the memory that it is made of
    with net.create_extractor() as extractor:
      extractor.input("in0", ncnn.Mat(picture))
      _, logits = extractor.extract("out0")
      return np.array(logits)[None]  # (c,) -> (1, c)

  return run


def _xla(network: "Network") -> Function:
  import jax

  function = jax.jit(network.xla)  # it has as many threads as the process has cores: one
  return lambda images: np.asarray(function(images))


def _pytorch(network: "Network", compiled: bool = False) -> Function:
  import torch

  from benchmarks.deployed import in_torch

  torch.set_num_threads(1)
  module = in_torch.Module(network.output).eval()
  if compiled:
    example = torch.zeros((1, *network.size, 3), dtype=torch.uint8)
    # torch.compile recompiles the same code only a few times. After an export, each network has code of its own.
    module = torch.compile(torch.export.export(module, (example,)).module(), dynamic=False)

  def run(images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
      return module(torch.from_numpy(images)).numpy()

  return run


_GENERIC = ("onnxruntime", "torch", "pytorchcv")
RUNTIMES = {
  "litert": Runtime("LiteRT", functools.partial(_of_the_package, suffix=".tflite"), ("ai_edge_litert",)),
  "onnxruntime": Runtime("onnxruntime", functools.partial(_of_the_package, suffix=".onnx"), ("onnxruntime",)),
  "generic": Runtime(
    "torch.onnx's file of pytorchcv's network", functools.partial(_generic, whole=True), _GENERIC, generic=True
  ),
  "generic-scaled": Runtime(
    "torch.onnx's file of pytorchcv's network for scaled pictures",
    functools.partial(_generic, whole=False),
    _GENERIC,
    generic=True,
  ),
  "openvino": Runtime("OpenVINO", _openvino, ("openvino",)),
  "ncnn": Runtime("ncnn", _ncnn, ("ncnn", "pnnx")),
  "xla": Runtime("XLA:CPU", _xla, ("jax",)),
  "pytorch": Runtime("PyTorch", _pytorch, ("torch",)),
  "pytorch-compiled": Runtime("PyTorch, compiled", functools.partial(_pytorch, compiled=True), ("torch",)),
}
