"""Compares the training stream, in images per second, with the usual recipe and the decoder's limit on this machine.

    python -m benchmarks.input_pipeline --data_dir=DIR --name=DATASET [--resized=DATASET] [--epochs=3] [--json=FILE]

DATASET is a prepared TFDS dataset of JPEGs with a split `train` (`python -m shufflenet_jax.data.prepare` makes one from
a folder); --resized names the same pictures, shrunk in advance. Each contestant runs in a process of its own. They take
turns, round by round, and all others are suspended while one is timed; figures are medians.

  limit     decodes full JPEGs from memory on all cores, and does nothing else
  recipe    TFDS, sample_distorted_bounding_box, decode_and_crop_jpeg, bilinear resize, flip, AUTOTUNE, batch, prefetch
  stream    what train.py reads: deterministic, each example exactly once an epoch, undecodable pictures skipped
  resized   the same on --resized
  careful   the stream in the form that it uses for some batches after an undecodable picture

It also prints the memory of this process after each of --epochs epochs, and how many cores a TPU slice would need.
"""

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable

from benchmarks.flags import at_least, output_file
from shufflenet_jax.data import cores  # before TensorFlow, which this silences

# Images per second that one chip trains, 1x g=3, 128 images per chip, by the TPU compiler's estimate (RESULTS.md).
ESTIMATED_TRAINING = {"v5e": 11_200}
TOPOLOGIES = {"v5e:2x2": 4, "v5e:2x4": 8, "v5e:4x4": 16}
BATCH = 64
MAX_CLASSES = 1_000_000  # more than any dataset has


def data_config(arguments, name):
  """The data section of configs/imagenet.py for a dataset."""
  from configs import imagenet

  data = imagenet.get_config().data
  data.name, data.data_dir = name, arguments.data_dir
  return data


def open_train(arguments, name):
  """The data section, and the split `train` of a dataset with any number of classes."""
  from shufflenet_jax.data import sources

  data = data_config(arguments, name)
  return data, sources.open_split(data, "train", MAX_CLASSES)


def stream(arguments, name):
  """Batches of a dataset's training stream, and the number of its examples."""
  from shufflenet_jax.data.stream import training

  data, split = open_train(arguments, name)
  batches = training.train_batches(split, data, batch_size=BATCH, num_classes=MAX_CLASSES, seed=0, start_step=0)
  return batches, split.num_examples


def careful_stream(arguments):
  """The examples of the training stream in their careful form, in batches."""
  from shufflenet_jax.data.stream import training

  data, split = open_train(arguments, arguments.name)
  examples = training.train_examples(split, data, BATCH, seed=0, start_step=0, careful=True)
  return examples.batch(BATCH).prefetch(2).as_numpy_iterator()


def recipe(arguments):
  """Batches of the usual recipe, as tutorials give it."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  data = data_config(arguments, arguments.name)

  def prepare(encoded):
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
      tf.image.extract_jpeg_shape(encoded),
      tf.zeros((1, 0, 4)),
      area_range=(data.min_crop_area, 1.0),
      aspect_ratio_range=(1 / data.max_crop_aspect, data.max_crop_aspect),
      max_attempts=100,
      use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], extent[:2]], 0)
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize(image, (data.image_size, data.image_size))
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

  builder = tfds.core.read_only_builder.builder_from_files(arguments.name, data_dir=arguments.data_dir)
  skip = {"image": tfds.decode.SkipDecoding()}
  dataset = builder.as_dataset(split="train", shuffle_files=True, decoders=skip).repeat().shuffle(1024)
  dataset = dataset.map(lambda e: (prepare(e["image"]), e["label"]), tf.data.AUTOTUNE)
  return dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def limit(arguments):
  """Decodes whole images from memory; yields batches of their sizes, to transfer almost nothing."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  builder = tfds.core.read_only_builder.builder_from_files(arguments.name, data_dir=arguments.data_dir)
  skip = {"image": tfds.decode.SkipDecoding()}
  pictures = [e["image"] for e in builder.as_dataset(split="train", decoders=skip).take(1000)]
  dataset = tf.data.Dataset.from_tensor_slices(pictures).repeat()
  dataset = dataset.map(lambda x: tf.size(tf.io.decode_jpeg(x, channels=3)), cores.count())
  return dataset.batch(BATCH).as_numpy_iterator()


def resident_mib() -> float:
  """Memory of this process, MiB."""
  with open("/proc/self/statm") as f:
    return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def contestants(arguments) -> dict[str, Callable]:
  """Name -> function that returns an iterator of batches, to be called in the contestant's process."""
  makers = {
    "limit": lambda: limit(arguments),
    "recipe": lambda: recipe(arguments),
    "stream": lambda: stream(arguments, arguments.name)[0],
    "careful": lambda: careful_stream(arguments),
  }
  if arguments.resized:
    makers["resized"] = lambda: stream(arguments, arguments.resized)[0]
  return makers


def contestant(name: str, arguments, orders) -> None:
  """The process of a contestant: for each number received, takes that many batches and sends back the seconds."""
  batches = contestants(arguments)[name]()
  while count := orders.recv():
    for _ in range(8):  # prepared before the process was suspended
      next(batches)
    began = time.perf_counter()
    for _ in range(count):
      next(batches)
    orders.send(time.perf_counter() - began)
  os._exit(0)  # does not wait for TensorFlow's threads, which are still at work


def seconds(name: str, runners: dict, batches: int) -> float:
  """Lets a contestant go on for so many batches, and suspends it again.

  Raises:
    SystemExit: it has ended.
  """
  process, orders = runners[name]
  os.kill(process.pid, signal.SIGCONT)
  try:
    orders.send(batches)
    taken = orders.recv()
  except (EOFError, OSError):
    raise SystemExit(f"{name} has failed; its error is above") from None
  os.kill(process.pid, signal.SIGSTOP)
  return taken


def measure(arguments) -> dict[str, float]:
  """Median images per second of each contestant; the others are suspended while one is timed."""
  context = multiprocessing.get_context("spawn")
  runners, rates = {}, {}
  try:
    for name in contestants(arguments):
      ours, theirs = context.Pipe()
      process = context.Process(target=contestant, args=(name, arguments, theirs), daemon=True)
      process.start()
      theirs.close()  # so that `recv` raises an error here if the process ends
      runners[name], rates[name] = (process, ours), []
      seconds(name, runners, batches=2)
    for done in range(1, arguments.rounds + 1):
      for name in runners:
        rates[name].append(arguments.batches * BATCH / seconds(name, runners, arguments.batches))
      print(f"  round {done} of {arguments.rounds}", end="\r" if done < arguments.rounds else "\n", flush=True)
  finally:
    for process, _ in runners.values():
      process.kill()  # a suspended process would not obey anything less
  return {name: statistics.median(values) for name, values in rates.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data_dir", required=True, help="where the TFDS datasets are")
  parser.add_argument("--name", required=True, help="a TFDS dataset of JPEGs of original size")
  parser.add_argument("--resized", help="the same pictures, shrunk in advance")
  parser.add_argument("--rounds", type=at_least(1), default=7)
  parser.add_argument("--batches", type=at_least(1), default=30, help=f"of {BATCH} images, per contestant and round")
  parser.add_argument("--epochs", type=at_least(0), default=3, help="after each of which the memory is printed")
  parser.add_argument("--json", type=output_file, help="file for the figures")
  arguments = parser.parse_args()

  rates = measure(arguments)
  usable = cores.count()
  for name, rate in rates.items():
    print(f"{name:8} {rate:8,.0f} images/s   {rate / rates['recipe']:5.2f} x recipe   {rate / usable:6,.0f} a core")
  memory = memory_after_epochs(arguments)
  print_cores_needed(rates, usable)
  if arguments.json:
    hardware = {"machine": platform.machine(), "cores": usable, "date": datetime.date.today().isoformat()}
    figures = {**hardware, "settings": vars(arguments), "images_per_second": rates, "memory_mib": memory}
    with open(arguments.json, "w") as file:
      json.dump(figures, file, indent=1)
    print(f"figures in {arguments.json}")


def memory_after_epochs(arguments) -> list[float]:
  """Memory of this process, MiB, after each epoch of the training stream; prints it."""
  batches, num_examples = stream(arguments, arguments.name)
  memory = []
  for epoch in range(1, arguments.epochs + 1):
    for _ in itertools.islice(batches, -(-num_examples // BATCH)):
      pass
    memory.append(resident_mib())
    print(f"memory after epoch {epoch}: {memory[-1]:,.0f} MiB")
  return memory


def print_cores_needed(rates: dict[str, float], usable: int) -> None:
  """Prints how many cores like the `usable` ones of this machine are needed to feed TPU slices."""
  for topology, chips in TOPOLOGIES.items():
    wanted = chips * ESTIMATED_TRAINING[topology.partition(":")[0]]
    line = f"{topology}: {wanted:,} images/s by the compiler's estimate need {wanted * usable / rates['stream']:,.0f}"
    line += " such cores"
    if "resized" in rates:
      line += f", {wanted * usable / rates['resized']:,.0f} on resized pictures"
    print(line)


if __name__ == "__main__":
  main()
