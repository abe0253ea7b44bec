"""What a run is trained with: devices, versions, commit. Each start adds a line to `WORKDIR/machine.jsonl`."""

import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess

import jax

from shufflenet_jax import storage
from shufflenet_jax.data import cores

FILE = "machine.jsonl"
_LIBRARIES = ("jax", "jaxlib", "flax", "optax")


def hardware() -> str:
  """The devices: `1 x NVIDIA H200`; or the CPU's usable cores and model: `2 cores, Intel(R) Xeon(R) Processor`."""
  devices = jax.devices()
  if devices[0].platform != "cpu":
    return f"{len(devices)} x {devices[0].device_kind}"
  usable = cores.count()
  return f"{usable} core{'s' if usable > 1 else ''}, {_cpu_model()}"


def _cpu_model() -> str:
  try:
    named = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
  except OSError:
    named = None
  return named.group(1) if named else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
  """Name -> version of the libraries that a result depends on, and of Python."""
  return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def commit() -> str:
  """The commit of this checkout, with `+changes` if files of the package or configs differ from it; "" if unknown."""
  root = pathlib.Path(__file__).parents[2]

  def git(*arguments):
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout.strip()

  try:
    if git("ls-files", "--", pathlib.Path(__file__)) == "":  # installed as a wheel, inside somebody else's repository
      return ""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "shufflenet_jax", "configs")
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
  except (OSError, subprocess.CalledProcessError):
    return ""


def add_start(workdir: str, step: int) -> None:
  """Adds a line about this machine to a work directory, in which training starts or continues after `step`."""
  line = {"step": step, "hardware": hardware(), "versions": versions(), "commit": commit()}
  storage.write_text(storage.join(workdir, FILE), "".join(json.dumps(start) + "\n" for start in [*read(workdir), line]))


def read(workdir: str) -> list[dict]:
  """The starts of a run, oldest first; [] if there is no file, or it is damaged."""
  try:
    return [json.loads(line) for line in storage.read_text(storage.join(workdir, FILE)).splitlines()]
  except (FileNotFoundError, ValueError):
    return []
