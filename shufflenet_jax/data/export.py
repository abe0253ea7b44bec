"""Writes examples of a config's evaluation split as picture files, one folder per class.

python -m shufflenet_jax.data.export --config=configs/quickstart.py --count=5 --to=DIR
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  cli.define_config("Config file; its data section names the dataset.")
  flags.DEFINE_integer("count", 5, "Number of examples.", lower_bound=1)
  cli.define_path("to", None, "Folder to write DIR/<class>/<example>.png into.")
  cli.require("config", "to")


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


def main(arguments: list[str]) -> None:
  cli.refuse_arguments(arguments)
  paths = export(flags.FLAGS.config, flags.FLAGS.count, flags.FLAGS.to)
  print(f"{len(paths)} pictures in {flags.FLAGS.to}")


if __name__ == "__main__":
  cli.run(main)
