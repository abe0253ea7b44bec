"""Names what is in pictures: top-5 classes and probabilities for each.

    python -m shufflenet_jax.predict --checkpoint=WORKDIR_OR_CHECKPOINT [--json] IMAGE|FOLDER|GLOB...

An argument is a file, a folder (all pictures in it and below) or a pattern in quotes, such as "photos/**/*.jpg"; local
or gs://. Answers come in the order of the arguments. A picture that cannot be read is named on stderr, and the status
is then 1. A bucket that does not answer ends the command.
"""

import json
import sys
import time

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError
from shufflenet_jax.progress import ProgressLine

# How many pictures are computed together: the smallest of these that takes all of them, or the largest. Each run thus
# compiles once. On a CPU larger batches are no faster, only later and larger.
CPU_BATCH_SIZES = (1, 8)
ACCELERATOR_BATCH_SIZES = (1, 8, 64)


class Predictor:
  """Finds the classes of pictures.

  Attributes:
    batch_sizes: those that pay on this machine's devices, ascending.
  """

  def __init__(self, found, top: int = 5):
    """`found` is a `checkpoint.Checkpoint`; `top` is how many classes to give, at most as many as there are."""
    import jax

    from shufflenet_jax.config import settings
    from shufflenet_jax.models import build
    from shufflenet_jax.training.train_step import normalize

    model, self._data = build.network(found.config.model), found.config.data
    scaling = settings.picture_scaling(found.config)
    variables = found.restore_variables()
    self.batch_sizes = CPU_BATCH_SIZES if jax.default_backend() == "cpu" else ACCELERATOR_BATCH_SIZES
    self._class_names, self._top = found.class_names, top
    self._probabilities = jax.jit(lambda images: jax.nn.softmax(model.apply(variables, normalize(images, **scaling))))

  def decode(self, encoded: bytes):
    """An image's encoded bytes -> uint8 (h, w, 3), as evaluation crops it. May be called by several threads."""
    from shufflenet_jax.data import pictures
    from shufflenet_jax.data.stream import augment

    data = self._data
    return augment.center_crop(pictures.decode(encoded), data.image_size, data.eval_resize, data.antialias).numpy()

  def classes(self, images: list, batch_size: int) -> list[list[tuple[str, float]]]:
    """The best classes of each of at most `batch_size` decoded images: [(name, probability), ...]."""
    import numpy as np

    batch = np.zeros((batch_size, *images[0].shape), np.uint8)
    batch[: len(images)] = images
    probabilities = np.asarray(self._probabilities(batch))[: len(images)]
    return [[(self._class_names[i], float(p[i])) for i in np.argsort(-p)[: self._top]] for p in probabilities]

  def __call__(self, encoded: bytes) -> list[tuple[str, float]]:
    """The best classes of one encoded image."""
    return self.classes([self.decode(encoded)], batch_size=1)[0]


def _so_far(done: int, total: int, seconds: float) -> str:
  """`1,200 of 10,000 pictures, 85/s, 1 min 43 s left`."""
  from shufflenet_jax.training import metrics

  rate = done / max(seconds, 1e-9)
  return f"{done:,} of {total:,} pictures, {rate:,.0f}/s, {metrics.duration((total - done) / rate)} left"


def answer(predictor: Predictor, arguments: list[str], as_json: bool) -> int:
  """Prints the classes of each picture, or to stderr why it has none.

  Args:
    predictor: finds the classes.
    arguments: files, folders and patterns.
    as_json: a JSON object a line, in place of a table.

  Returns:
    1 if something could not be read, 0 otherwise.
  """
  from shufflenet_jax.data import picture_files
  from shufflenet_jax.data.listing import printable

  pictures = picture_files.find(arguments)
  width = max(len(printable(picture.path)) for picture in pictures)
  if not as_json:
    print(f"{'image':{width}}  probability  class", flush=True)
  batch_size = next((size for size in predictor.batch_sizes if size >= len(pictures)), predictor.batch_sizes[-1])
  progress, began, failed, done = ProgressLine(sys.stderr, terminal_seconds=1), time.monotonic(), 0, 0
  for group in picture_files.decoded(pictures, predictor.decode, batch_size):
    images = [picture.image for picture in group if not picture.wrong]
    found = iter(predictor.classes(images, batch_size) if images else ())
    progress.clear()
    for path, wrong, _ in group:
      if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        failed += 1
      elif as_json:
        print(json.dumps({"image": path, "classes": [{"name": n, "probability": p} for n, p in next(found)]}))
      else:
        for row, (name, probability) in enumerate(next(found)):
          print(f"{'' if row else printable(path):{width}}  {100 * probability:9.1f} %  {name}")
    sys.stdout.flush()
    done += len(group)
    if done < len(pictures):
      progress.show(_so_far(done, len(pictures), time.monotonic() - began))
  if failed:
    print(f"error: {failed} of {len(pictures)} images could not be read", file=sys.stderr)
  return 1 if failed else 0


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "checkpoint", "A work directory (its newest checkpoint) or WORKDIR/checkpoints/<step>.")
  flags.DEFINE_bool("json", False, "Print one JSON object per image instead of a table.", values)


def main(values: flags.FlagValues, arguments: list[str]) -> int:
  if not arguments:
    raise UserError("no images given; name files, folders or patterns after the flags")
  from shufflenet_jax.checkpoints import checkpoint

  return answer(Predictor(checkpoint.find(values.checkpoint)), arguments, values.json)


command = cli.Command(main, define_flags, required=("checkpoint",), takes_arguments=True)

if __name__ == "__main__":
  command()
