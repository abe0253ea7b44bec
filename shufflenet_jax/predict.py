"""Names what is in pictures: top-5 classes and probabilities for each.

python -m shufflenet_jax.predict --checkpoint=WORKDIR_OR_CHECKPOINT [--json] IMAGE...
"""

import json
import sys

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  cli.define_path("checkpoint", None, "A work directory (its newest checkpoint) or WORKDIR/checkpoints/<step>.")
  flags.DEFINE_bool("json", False, "Print one JSON object per image instead of a table.")
  cli.require("checkpoint")


def predictor(found, top: int = 5):
  """A function from an image's encoded bytes to its best classes: [(name, probability), ...].

  Args:
    found: a `checkpoint.Checkpoint`.
    top: how many classes, at most as many as there are.
  """
  import jax
  import numpy as np

  from shufflenet_jax import network, settings
  from shufflenet_jax.data import augment, pictures
  from shufflenet_jax.train_step import normalize

  model, data = network.build(found.config.model), found.config.data
  scaling = settings.picture_scaling(found.config)
  variables = found.restore_variables()

  @jax.jit
  def probabilities(images):
    return jax.nn.softmax(model.apply(variables, normalize(images, **scaling)))

  def predict(encoded: bytes) -> list[tuple[str, float]]:
    image = augment.center_crop(pictures.decode(encoded), data.image_size, data.eval_resize, data.antialias).numpy()
    p = np.asarray(probabilities(image[None]))[0]
    return [(found.class_names[i], float(p[i])) for i in np.argsort(-p)[:top]]

  return predict


def answer(predict, paths: list[str], as_json: bool) -> int:
  """Prints the classes of each picture, or to stderr that it is none.

  Args:
    predict: a `predictor`.
    paths: files, local or gs://.
    as_json: a JSON object a line, in place of a table.

  Returns:
    1 if one could not be read, 0 otherwise.
  """
  import tensorflow as tf
  from etils import epath

  from shufflenet_jax.data import pictures

  width = max(map(len, paths))
  if not as_json:
    print(f"{'image':{width}}  probability  class")
  failed = 0
  for path in paths:
    try:
      encoded = epath.Path(path).read_bytes()
      classes = predict(encoded)
    except OSError as error:
      print(f"error: {path}: {error.strerror or error}", file=sys.stderr)
      failed += 1
      continue
    except tf.errors.InvalidArgumentError:
      print(f"error: {path}: not an image that can be decoded: {pictures.why_not(encoded)}", file=sys.stderr)
      failed += 1
      continue
    if as_json:
      print(json.dumps({"image": path, "classes": [{"name": n, "probability": p} for n, p in classes]}))
    else:
      for first, (name, probability) in zip([path] + [""] * len(classes), classes):
        print(f"{first:{width}}  {100 * probability:9.1f} %  {name}")
  if failed:
    print(f"error: {failed} of {len(paths)} images could not be read", file=sys.stderr)
  return 1 if failed else 0


def main(paths: list[str]) -> int:
  if not paths:
    raise UserError("no images given; name one or more files after the flags")
  from shufflenet_jax import checkpoint

  return answer(predictor(checkpoint.find(flags.FLAGS.checkpoint)), paths, flags.FLAGS.json)


if __name__ == "__main__":
  cli.run(main)
