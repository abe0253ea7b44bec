"""Compares training from pictures in memory with training from the stream, in images per second, in turns.

    python -m benchmarks.in_memory [--config=configs/tiny_imagenet.py] [--data_dir=DIR] [--rounds=5]
        [--seconds=5] [--json=FILE]

Both train the config's network; only data.in_memory differs. `batches` are the same batches without a training step:
the most that each kind of data could supply if training took no time.
"""

import argparse
import contextlib
import json

import jax

from benchmarks.flags import at_least, output_file
from benchmarks.train_step import cpu_name, take_turns
from shufflenet_jax import tasks
from shufflenet_jax.config import config_file, settings
from shufflenet_jax.data import opening
from shufflenet_jax.distributed import mesh
from shufflenet_jax.training import batches, prefetch
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import compile_train_step, init_state


def contestants(config, stack: contextlib.ExitStack) -> dict:
  """`training` and `batches`: functions that each take the next batch, and train on it or not."""
  over = mesh.data_mesh()
  model, _ = tasks.network_for_images(config)
  task = tasks.build(model, config)
  optimizer, schedule = sgd(config.optimizer, config.num_train_steps)
  arguments = settings.step_arguments(config, mesh.micro_batches(config, over.size))
  step = compile_train_step(over, task=task, optimizer=optimizer, schedule=schedule, **arguments)
  state = mesh.replicate(init_state(model, optimizer, config.data.image_size, config.seed), over)
  made = batches.for_training(opening.open_split(config, config.data.train_split, task.examples), config, task, over)
  feeds = [stack.enter_context(prefetch.Feed(made.host(0), made.to_devices)) for _ in range(2)]

  def train():
    nonlocal state
    state, metrics = step(state, feeds[0].get(state))
    jax.block_until_ready(metrics)

  def take():
    jax.block_until_ready(feeds[1].get(()))

  return {"training": train, "batches": take}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--config", default="configs/tiny_imagenet.py")
  parser.add_argument("--data_dir", default="")
  parser.add_argument("--rounds", type=at_least(1), default=5)
  parser.add_argument("--seconds", type=at_least(0, float), default=5.0, help="of each turn: once untimed, then timed")
  parser.add_argument("--json", type=output_file, help="file for the figures")
  arguments = parser.parse_args()
  config = config_file.load(arguments.config)
  config.data.data_dir = arguments.data_dir
  functions = {}
  with contextlib.ExitStack() as stack:
    for in_memory in (False, True):
      config.data.in_memory = in_memory
      kind = "memory" if in_memory else "stream"
      made = contestants(config.copy_and_resolve_references(), stack)
      functions |= {f"{what}, {kind}": function for what, function in made.items()}
    seconds = take_turns(functions, arguments.rounds, arguments.seconds)
  rates = {name: config.batch_size / each for name, each in seconds.items()}
  for name, rate in rates.items():
    print(f"{name:18} {rate:8,.0f} images/s")
  for what in ("training", "batches"):
    print(f"{what}: memory is {rates[f'{what}, memory'] / rates[f'{what}, stream']:.2f} times the stream")
  if arguments.json:
    device = jax.devices()[0]
    hardware = cpu_name() if device.platform == "cpu" else device.device_kind
    with open(arguments.json, "w") as file:
      json.dump({"config": arguments.config, "hardware": hardware, "images_per_second": rates}, file, indent=1)


if __name__ == "__main__":
  main()
