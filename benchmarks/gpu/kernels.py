"""The longest kernels of a step: from the trace that jax.profiler writes, which needs neither TensorFlow nor XProf."""

import collections
import dataclasses
import glob
import gzip
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable

import jax

from shufflenet_jax.tpu import hlo


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What a device did for one instruction of the program.

  Attributes:
    name: of the kernel.
    instruction: of the compiled program; "" if the trace does not name it.
    ms: in one step.
    launches: in one step.
    layer: of the network, and the pass, for example "stage2_unit1 backward"; "" if unknown.
    operation: the JAX operation that the instruction comes from; "" if unknown.
  """

  name: str
  instruction: str
  ms: float
  launches: float
  layer: str = ""
  operation: str = ""


def traced(run: Callable[[int], None], steps: int, path: str) -> dict:
  """Runs steps while jax.profiler records them; returns its trace, and writes it as a .json.gz file, for Perfetto."""
  with tempfile.TemporaryDirectory() as folder:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's calls would fill the trace
    jax.profiler.start_trace(folder, profiler_options=options)
    try:
      run(steps)
    finally:
      jax.profiler.stop_trace()
    found = glob.glob(os.path.join(folder, "plugins", "profile", "*", "*.trace.json.gz"))
    if not found:
      raise RuntimeError("jax.profiler has written no trace.json.gz")
    shutil.copyfile(found[0], path)
  with gzip.open(path) as file:
    return json.load(file)


def longest_first(trace: dict, steps: int, program: str) -> list[Kernel]:
  """All kernels of a trace, those that took longest in total first.

  Args:
    trace: as `traced` returns it.
    steps: how many it has.
    program: the compiled program as text, in which instructions are looked up.
  """
  total, launches = collections.Counter(), collections.Counter()
  for event in _device_events(trace):
    key = event["name"], event.get("args", {}).get("hlo_op", "")
    total[key] += event.get("dur", 0) / 1000  # microseconds -> ms
    launches[key] += 1
  instructions = _instructions(program)
  kernels = []
  for (name, instruction), ms in total.most_common():
    found = instructions.get(instruction or name)
    known = {"layer": found.layer, "operation": found.op_name} if found else {}
    kernels.append(Kernel(name, instruction, ms / steps, launches[name, instruction] / steps, **known))
  return kernels


def _instructions(program: str) -> dict[str, hlo.Instruction]:
  """Name -> instruction, and name of the kernel that XLA makes of it -> the same.

  Empty if the text is not as the parser, which was made for TPUs, knows it.
  """
  try:
    instructions = hlo.parse(program)
  except (KeyError, ValueError):
    return {}
  by_kernel = {re.sub(r"[.-]", "_", instruction.name): instruction for instruction in instructions}
  return by_kernel | {instruction.name: instruction for instruction in instructions}


def _device_events(trace: dict) -> list[dict]:
  """What the devices ran: on GPUs the events of their streams, on a CPU the program's instructions."""
  names, devices = {}, set()
  for event in trace["traceEvents"]:
    if event.get("ph") == "M" and event["name"] == "thread_name":
      names[event["pid"], event["tid"]] = event["args"]["name"]
    elif event.get("ph") == "M" and event["name"] == "process_name" and "/device:" in event["args"]["name"]:
      devices.add(event["pid"])
  events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
  if not devices:
    return [event for event in events if "hlo_op" in event.get("args", {})]
  # Beside the streams there may be lines that sum them up, such as "XLA Modules".
  return [e for e in events if e["pid"] in devices and names.get((e["pid"], e["tid"]), "Stream").startswith("Stream")]
