"""Wall-clock time of the train step and of inference on JAX's default device; on a CPU, compared with PyTorch.

    python -m benchmarks.train_step [--scale=1.0 --groups=3 --batch=32 --json=FILE] [--lowerings=auto,reference]
    python -m benchmarks.train_step --network=mobilenet_v1 [--scale=1.0]
    python -m benchmarks.train_step --network=resnet [--mflops=140]

The networks take turns, round by round, in one run, so that other work on the machine affects all of them; the figures
are medians, and their ratios to PyTorch's. Both use the same batch and recipe: uint8 images, normalised in the step;
SGD with momentum; float32 on a CPU; PyTorch has channels-last. For GPUs, benchmarks/gpu.sh makes the comparison.
It needs jax, flax and optax; the comparison needs torch and pytorchcv.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.flags import at_least, output_file
from shufflenet_jax import startup
from shufflenet_jax.data import cores
from shufflenet_jax.distributed.mesh import data_mesh, replicate, split_batch
from shufflenet_jax.models import build
from shufflenet_jax.models.formulations.choose import LOWERINGS
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS
from shufflenet_jax.tasks.classification import Classification
from shufflenet_jax.tasks.forward import Forward
from shufflenet_jax.training.step import compile_train_step, init_state

# Network -> the flags that describe it.
OWN_FIELDS = {"shufflenet_v1": ("scale", "groups"), "mobilenet_v1": ("scale",), "resnet": ("mflops",)}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def our_network(arguments, lowering: str):
  """The Flax module that the flags describe."""
  fields = {name: getattr(arguments, name) for name in OWN_FIELDS[arguments.network]}
  chosen = {"network": arguments.network, "num_classes": 1000, "dtype": arguments.dtype, "lowering": lowering}
  return build.network(chosen | fields)


def jax_steps(arguments, images, labels, lowering: str):
  """(train, infer): functions that run one step and wait for its end."""
  model = our_network(arguments, lowering)
  schedule = optax.constant_schedule(0.01)
  optimizer = optax.sgd(schedule, 0.9)
  mesh = data_mesh(jax.devices()[:1])
  state = replicate(init_state(model, optimizer, arguments.image_size, 0), mesh)
  batch = split_batch({"image": images, "label": labels}, mesh)
  task = Classification(Forward(model, MEAN, STD))
  step = compile_train_step(mesh, task=task, optimizer=optimizer, schedule=schedule)
  held = [state]

  def train():
    held[0], metrics = step(held[0], batch)
    jax.block_until_ready(metrics)

  variables = jax.device_put({"params": state.params, "batch_stats": state.batch_stats}, mesh.devices.flat[0])
  variables = jax.tree.map(jnp.copy, variables)  # the train step donates the state's own buffers
  forward = jax.jit(task.forward)

  def infer():
    jax.block_until_ready(forward(variables, batch["image"]))

  return train, infer


def torch_steps(arguments, images, labels):
  """The same two functions for the network in PyTorch."""
  import torch

  from benchmarks import torch_networks

  net = torch_networks.network(our_network(arguments, "auto"), arguments.network, arguments.image_size)
  net = net.to(memory_format=torch.channels_last)
  optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
  mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
  images = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(memory_format=torch.channels_last)
  labels = torch.from_numpy(labels.astype(np.int64))

  def logits():
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
      return net((images.float() - mean) / std)

  def train():
    net.train()
    optimizer.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(logits().float(), labels).backward()
    optimizer.step()

  def infer():
    net.eval()
    with torch.inference_mode():
      logits()

  return train, infer


def take_turns(functions: dict, rounds: int, seconds: float) -> dict[str, float]:
  """Median seconds of one call of each function.

  In every round each function is called for `seconds` untimed and then for `seconds` timed: the first seconds after
  another function's turn are slower, because the system provides other memory than before.
  """

  def call(function):
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < seconds:
      function()
      calls += 1
    return (time.perf_counter() - began) / calls

  for function in functions.values():  # compiles
    function()
  times = {name: [] for name in functions}
  for done in range(1, rounds + 1):
    for name, function in functions.items():
      call(function)
      times[name].append(call(function))
    print(f"  round {done} of {rounds}", end="\r" if done < rounds else "\n", flush=True)
  return {name: statistics.median(values) for name, values in times.items()}


def cpu_name() -> str:
  """Model, family and widest vectors of the CPU, if known: virtual machines often hide the model's number."""
  try:
    with open("/proc/cpuinfo") as file:
      first = file.read().split("\n\n")[0]
  except OSError:
    return platform.machine()
  said = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
  said = {key.strip(): value.strip() for key, value in said.items()}
  flags = said.get("flags", "").split()
  vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
  parts = (said.get("model name", platform.machine()), f"family {said['cpu family']}" if "cpu family" in said else "")
  return ", ".join(part for part in (*parts, vectors) if part)


def parsed_arguments() -> argparse.Namespace:
  """The command line's flags, checked; prints what is wrong and exits with 2 otherwise."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--network", choices=tuple(OWN_FIELDS), default="shufflenet_v1")
  parser.add_argument("--scale", type=at_least(0.05, float), default=1.0)
  parser.add_argument("--groups", type=int, default=3)
  parser.add_argument("--mflops", type=float, default=140.0, help="of the resnet, for one picture of 224 pixels")
  parser.add_argument("--batch", type=at_least(1), default=32)
  parser.add_argument("--image_size", type=at_least(1), default=224)
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on a CPU float32")
  parser.add_argument("--lowerings", default="auto,reference", help=f"some of {','.join(LOWERINGS)}")
  parser.add_argument("--rounds", type=at_least(1), default=5)
  seconds = "for each network and round: once untimed, then timed"
  parser.add_argument("--seconds", type=at_least(0, float), default=4.0, help=seconds)
  parser.add_argument("--json", type=output_file, help="file for the figures")
  arguments = parser.parse_args()
  arguments.lowerings = arguments.lowerings.split(",")
  if unknown := [name for name in arguments.lowerings if name not in LOWERINGS]:
    parser.error(f"--lowerings: {unknown[0]!r} is not one of {', '.join(LOWERINGS)}")
  if arguments.groups not in STAGE2_CHANNELS:
    parser.error(f"--groups={arguments.groups} is not one of {', '.join(map(str, STAGE2_CHANNELS))}")
  return arguments


def main():
  arguments = parsed_arguments()
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    startup.use_huge_pages()  # as the commands do; PyTorch benefits, too
  device = jax.devices()[0]
  arguments.dtype = arguments.dtype or ("float32" if device.platform == "cpu" else "bfloat16")

  rng = np.random.default_rng(0)
  shape = (arguments.batch, arguments.image_size, arguments.image_size, 3)
  images = rng.integers(0, 256, shape, dtype=np.uint8)
  labels = rng.integers(0, 1000, arguments.batch, dtype=np.int32)
  steps = {f"jax {name}": jax_steps(arguments, images, labels, name) for name in arguments.lowerings}
  peer = False
  if device.platform != "cpu":
    print(f"no comparison: it is made on CPUs only, not on {device.device_kind}")
  elif not all(importlib.util.find_spec(name) for name in ("torch", "pytorchcv")):
    print("no comparison: torch or pytorchcv is not installed")
  elif arguments.network != "resnet" and -(-arguments.image_size // 32) != 7:
    print(f"no comparison: pytorchcv's networks take pictures of 193 to 224 pixels, not {arguments.image_size}")
  else:
    steps["pytorch"], peer = torch_steps(arguments, images, labels), True

  packages = ("jax", "flax", "optax") + (("torch", "pytorchcv") if peer else ())
  versions = {name: importlib.metadata.version(name) for name in packages}
  print(f"{device.device_kind}; {cores.count()} cores of {cpu_name()}; {versions}")
  network = " ".join(f"{name}={getattr(arguments, name)}" for name in OWN_FIELDS[arguments.network])
  of_step = f"batch {arguments.batch}, {arguments.image_size}px, {arguments.dtype}"
  print(f"{arguments.network} {network}, {of_step}")
  hardware = {"device": device.device_kind, "cpu": cpu_name(), "cores": cores.count()}
  hardware["date"] = datetime.date.today().isoformat()
  results = {**hardware, "versions": versions, "settings": vars(arguments), "images_per_second": {}}
  for index, mode in enumerate(("train", "infer")):
    seconds = take_turns({name: both[index] for name, both in steps.items()}, arguments.rounds, arguments.seconds)
    rates = {name: arguments.batch / s for name, s in seconds.items()}
    results["images_per_second"][mode] = rates
    base = rates.get("pytorch")
    for name, rate in rates.items():
      print(f"{mode:6} {name:16} {rate:10,.1f} images/s" + (f"   {rate / base:5.2f} x pytorch" if base else ""))
  if arguments.json:
    with open(arguments.json, "w") as file:
      json.dump(results, file, indent=1)
    print(f"figures in {arguments.json}")


if __name__ == "__main__":
  main()
