"""What a run measures: the card, its driver, and the versions of what computes."""

import importlib.metadata
import importlib.util
import platform
import subprocess

from shufflenet_jax.data import cores

_CARD = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory")
_PACKAGES = (
  "jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax", "optax", "torch", "triton", "pytorchcv"
)  # fmt: skip


def card() -> dict[str, str]:
  """What nvidia-smi reports of the first GPU; nothing if it does not run."""
  command = ["nvidia-smi", f"--query-gpu={','.join(_CARD)}", "--format=csv,noheader", "--id=0"]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
  except (OSError, subprocess.SubprocessError):
    return {}
  return dict(zip(_CARD, (value.strip() for value in done.stdout.splitlines()[0].split(","))))


def versions() -> dict[str, str]:
  """Python's, those of the packages that are installed, and those of CUDA and cuDNN in PyTorch."""
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def describe(device, with_torch: bool) -> dict:
  """All of it, for the report.

  Args:
    device: JAX's.
    with_torch: whether PyTorch is measured, too.
  """
  described = {"device": device.device_kind, "cores": cores.count(), "card": card(), "versions": versions()}
  if with_torch:
    import torch

    from benchmarks.gpu import torch_network

    described["torch_network"] = torch_network.source()
    described["versions"] |= {"torch.cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
  return described


def why_no_torch(rehearse: bool) -> str:
  """Why PyTorch cannot be compared with; "" if it can."""
  if not importlib.util.find_spec("torch"):
    return "torch is not installed"
  try:
    import torch
  except Exception as error:  # of any kind: it loads libraries of CUDA, which JAX has loaded already
    return f"torch cannot be imported: {' '.join(str(error).split())}"
  if not (rehearse or torch.cuda.is_available()):
    return f"torch {torch.__version__} finds no GPU"
  return ""
