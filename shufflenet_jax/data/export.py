"""Writes a config's pictures as files: some of its evaluation split as PNGs, or both splits, decoded, as arrays.

    python -m shufflenet_jax.data.export --config=configs/quickstart.py --count=5 --to=DIR
    python -m shufflenet_jax.data.export --config=configs/tiny_imagenet.py --arrays --to=DIR

The first writes DIR/<class>/<example>.png. The second writes DIR/<split>.npz, from which --config.data.name=arrays
trains on machines without TensorFlow. Pictures of different sizes become squares there, see data/arrays/decode.py.
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError


def export(config, count: int, to: str) -> list[str]:
  """Writes the first `count` evaluation examples, undistorted, as PNG files; returns their paths.

  Raises:
    UserError: the dataset cannot be opened, a picture cannot be decoded, or the folder cannot be written.
  """
  import tensorflow as tf

  from shufflenet_jax import storage
  from shufflenet_jax.data import sources
  from shufflenet_jax.data.arrays.arrays import Arrays
  from shufflenet_jax.data.stream import evaluation

  split = sources.open_split(config.data, config.data.eval_split, config.model.num_classes)
  folder, paths = storage.normalize(to, "--to="), []
  if isinstance(split, Arrays):
    examples = zip(range(count), split.images, split.labels)
  else:
    examples = evaluation.raw_examples(split).take(count).as_numpy_iterator()
  while True:
    try:
      example_id, image, label = next(examples)
    except StopIteration:
      return paths
    except tf.errors.OpError:
      raise UserError(split.explain(len(paths))) from None
    path = storage.join(folder, split.class_names[label], f"{example_id:05d}.png")
    storage.write_bytes(path, tf.io.encode_png(image).numpy())
    paths.append(path)


def export_arrays(config, to: str) -> list[str]:
  """Writes the splits for training and evaluation as `.npz` files; returns their paths.

  Raises:
    UserError: a split cannot be opened or decoded, or does not fit in memory, or the folder cannot be written.
  """
  from shufflenet_jax import storage
  from shufflenet_jax.data import opening
  from shufflenet_jax.data.sources import arrays

  config.data.in_memory, paths = True, []
  for name, split in zip((config.data.train_split, config.data.eval_split), opening.open_splits(config)):
    path = storage.join(storage.normalize(to, "--to="), f"{name}.npz")
    arrays.save(path, split.images, split.labels, split.class_names[: split.dataset_classes])
    paths.append(path)
  return paths


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values, "Config file; its data section determines what to read.")
  flags.DEFINE_integer("count", 5, "How many examples.", lower_bound=1, flag_values=values)
  flags.DEFINE_bool("arrays", False, "Write both splits, whole, as DIR/<split>.npz.", values)
  cli.define_path(values, "to", "Folder to write into.")


def main(values: flags.FlagValues) -> None:
  if values.arrays:
    print(*export_arrays(values.config, values.to), sep="\n")
    return
  paths = export(values.config, values.count, values.to)
  print(f"{len(paths)} pictures in {values.to}")


command = cli.Command(main, define_flags, required=("config", "to"))

if __name__ == "__main__":
  command()
