"""Names what is in pictures: top-5 classes and probabilities for each.

    python -m shufflenet_jax.predict --checkpoint=WORKDIR_OR_CHECKPOINT [--json] IMAGE|FOLDER|GLOB...

An argument is a file, a folder (all pictures in it and its subfolders) or a pattern in quotes, such as
"photos/**/*.jpg"; local or gs://. Answers are in the order of the arguments. Pictures that cannot be read are named on
stderr, and the exit status is then 1. A bucket that does not answer ends the command.
"""

import json
import operator
import sys
import time

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError
from shufflenet_jax.progress import ProgressLine

# The batch size of a run is the smallest of these that holds all of its pictures, or else the largest, so that each run
# compiles once. On a CPU larger batches are no faster, but take more memory, and the first answer comes later.
CPU_BATCH_SIZES = (1, 8)
ACCELERATOR_BATCH_SIZES = (1, 8, 64)


class Predictor:
  """Answers what a checkpoint's task asks of pictures; for classification, their most probable classes.

  Attributes:
    task: the `tasks.Task`.
    batch_sizes: the sizes to choose from on this machine's devices, ascending.
  """

  def __init__(self, source):
    """`source`: a `checkpoint.Checkpoint`."""
    import jax

    from shufflenet_jax import tasks
    from shufflenet_jax.models import build

    self.task = tasks.build(build.network(source.config.model), source.config)
    variables = source.restore_variables()
    self.batch_sizes = CPU_BATCH_SIZES if jax.default_backend() == "cpu" else ACCELERATOR_BATCH_SIZES
    self._data, self._class_names = source.config.data, source.class_names
    self._predict = jax.jit(lambda images: self.task.predict(variables, images))

  def decode(self, encoded: bytes):
    """An image's encoded bytes -> uint8 (h, w, 3), as evaluation crops it. May be called by several threads."""
    from shufflenet_jax.data import pictures
    from shufflenet_jax.data.stream import augment

    data = self._data
    return augment.center_crop(pictures.decode(encoded), data.image_size, data.eval_resize, data.antialias).numpy()

  def answers(self, images: list, batch_size: int) -> list:
    """The task's answer for each of at most `batch_size` decoded images; see `Task.answer`."""
    import jax
    import numpy as np

    batch = np.zeros((batch_size, *images[0].shape), np.uint8)
    batch[: len(images)] = images
    predictions = jax.device_get(self._predict(batch))
    rows = (jax.tree.map(operator.itemgetter(i), predictions) for i in range(len(images)))
    return [self.task.answer(row, self._class_names) for row in rows]

  def __call__(self, encoded: bytes):
    """The answer for one encoded image."""
    return self.answers([self.decode(encoded)], batch_size=1)[0]


def _so_far(done: int, total: int, seconds: float) -> str:
  """`1,200 of 10,000 pictures, 85/s, 1 min 43 s left`."""
  from shufflenet_jax.training import metrics

  rate = done / max(seconds, 1e-9)
  return f"{done:,} of {total:,} pictures, {rate:,.0f}/s, {metrics.duration((total - done) / rate)} left"


def answer(predictor: Predictor, arguments: list[str], as_json: bool) -> int:
  """Prints the answer for each picture, or to stderr why it cannot be read.

  Args:
    predictor: gives the answers.
    arguments: files, folders and patterns.
    as_json: whether to print one JSON object per line instead of a table.

  Returns:
    1 if something could not be read, 0 otherwise.
  """
  from shufflenet_jax.data import picture_files
  from shufflenet_jax.data.listing import printable

  task, pictures = predictor.task, picture_files.find(arguments)
  width = max(len(printable(picture.path)) for picture in pictures)
  if not as_json:
    print(f"{'image':{width}}  {task.table_heading}", flush=True)
  batch_size = next((size for size in predictor.batch_sizes if size >= len(pictures)), predictor.batch_sizes[-1])
  progress, began, failed, done = ProgressLine(sys.stderr, terminal_seconds=1), time.monotonic(), 0, 0
  for group in picture_files.decoded(pictures, predictor.decode, batch_size):
    images = [picture.image for picture in group if not picture.wrong]
    answers = iter(predictor.answers(images, batch_size) if images else ())
    progress.clear()
    for path, wrong, _ in group:
      if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        failed += 1
      elif as_json:
        print(json.dumps({"image": path} | task.answer_as_json(next(answers))))
      else:
        for number, row in enumerate(task.answer_as_rows(next(answers))):
          print(f"{'' if number else printable(path):{width}}  {row}")
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
