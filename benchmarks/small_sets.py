"""Measures the training stream, in images per second, on sets of 40 to 10,000 small pictures.

    python -m benchmarks.small_sets [--sizes=40,200,1200,10000] [--seconds=5]

Makes class folders of 32x32 PNG files of noise in a temporary folder and reads them in batches of 64, with the data
section of configs/quickstart.py. Expected: with 40 pictures, at least half the rate that it has
with 10,000.
"""

import argparse
import itertools
import os
import tempfile
import time

import shufflenet_jax.data  # noqa: F401  before TensorFlow, which it silences
from benchmarks.flags import at_least

BATCH = 64


def write_pictures(folder: str, count: int) -> None:
  """Writes PNG files into two class folders of `folder/train`."""
  import numpy as np
  from PIL import Image

  rng = np.random.default_rng(0)
  for i in range(count):
    path = os.path.join(folder, "train", ("ant", "bee")[i % 2], f"{i}.png")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def rate(folder: str, seconds: float) -> float:
  """Images per second, after twenty batches."""
  from configs import quickstart
  from shufflenet_jax.data import sources
  from shufflenet_jax.data.stream import training

  data = quickstart.get_config().data
  data.name, data.data_dir = "folder", folder
  split = sources.open_split(data, "train", 2, every_class=True)
  batches = training.train_batches(split, data, batch_size=BATCH, num_classes=2, seed=0, start_step=0)
  for _ in itertools.islice(batches, 20):
    pass
  began, count = time.perf_counter(), 0
  while time.perf_counter() - began < seconds:
    next(batches)
    count += 1
  return count * BATCH / (time.perf_counter() - began)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sizes", default="40,200,1200,10000", help="numbers of pictures")
  parser.add_argument("--seconds", type=at_least(0, float), default=5, help="for each")
  arguments = parser.parse_args()
  for size in map(int, arguments.sizes.split(",")):
    with tempfile.TemporaryDirectory() as folder:
      write_pictures(folder, size)
      print(f"{size:7,} pictures: {rate(folder, arguments.seconds):7,.0f} images/s", flush=True)


if __name__ == "__main__":
  main()
