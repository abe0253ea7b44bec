"""Opens streams of the bundled digits and of folders of photographs."""

import itertools

import ml_collections
import numpy as np

from shufflenet_jax.data import sources
from shufflenet_jax.data.stream import training
from tests.pictures import put, uniform


def open_tfds(name, data_dir, split, num_classes):
  data = ml_collections.ConfigDict({"name": name, "data_dir": data_dir})
  return sources.open_split(data, split, num_classes)


def open_digits(config, name):
  return open_tfds("digits", config.data.data_dir, name, 10)


def batches(config, start_step=0, seed=0, process=(0, 1), batch_size=64):
  split = open_digits(config, "train")
  return training.train_batches(
    split, config.data, batch_size=batch_size, num_classes=10, seed=seed, start_step=start_step, process=process
  )


def stream(config, steps, batch_size=8, **options):
  """The first batches of the training stream of a folder."""
  split = sources.open_split(config.data, config.data.train_split, 10, every_class=True)
  options = {"seed": 0, "start_step": 0} | options
  found = training.train_batches(split, config.data, batch_size=batch_size, num_classes=10, **options)
  return list(itertools.islice(found, steps))


def assert_same(a, b):
  for key in a | b:
    np.testing.assert_array_equal(a[key], b[key])


def write_photographs(folder, config, train=16, val=4):
  """JPEGs of two classes, of rising brightness, in folders as configs/folder.py names them; the config reads them."""
  for i in range(train + val):
    path = folder / ("train" if i < train else "val") / ("ant", "bee")[i % 2] / f"{i:02d}.jpg"
    put(path, uniform(10 * i % 250))
  config.data.name, config.data.data_dir = "folder", str(folder)
  config.data.train_split, config.data.eval_split = "train", "val"
  return folder
