"""Writes examples of a config's evaluation split as picture files, one folder per class.

python -m shufflenet_jax.data.export --config=configs/quickstart.py --count=5 --to=DIR
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
  from shufflenet_jax.data.stream import evaluation

  split = sources.open_split(config.data, config.data.eval_split, config.model.num_classes)
  folder, paths = storage.normalize(to, "--to="), []
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


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values, "Config file; its data section determines what to read.")
  flags.DEFINE_integer("count", 5, "How many examples.", lower_bound=1, flag_values=values)
  cli.define_path(values, "to", "Folder to write DIR/<class>/<example>.png into.")


def main(values: flags.FlagValues) -> None:
  paths = export(values.config, values.count, values.to)
  print(f"{len(paths)} pictures in {values.to}")


command = cli.Command(main, define_flags, required=("config", "to"))

if __name__ == "__main__":
  command()
