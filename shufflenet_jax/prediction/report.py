"""Prints the answers for many pictures, and how long the rest will take."""

import json
import sys
import time
from typing import Any, Protocol

from shufflenet_jax.data import picture_files
from shufflenet_jax.data.listing import printable
from shufflenet_jax.data.picture_formats import PictureError
from shufflenet_jax.prediction.drawing import Drawing
from shufflenet_jax.progress import ProgressLine, duration


class PicturePredictor(Protocol):
  """Answers for pictures: `prediction.predictor.Predictor` or `deployment.predictor.FilePredictor`.

  Attributes:
    task: has `table_heading`, `answer_as_json` and `answer_as_rows` of `tasks.task.Task`.
    batch_sizes: how many pictures it takes at once, ascending.
  """

  task: Any
  batch_sizes: tuple[int, ...]

  def decode(self, encoded: bytes) -> Any:
    """An image's bytes -> what `answers` takes; raises a `PictureError` if they are no picture. Called by threads."""

  def answers(self, decoded: list, batch_size: int) -> list:
    """The task's answer for each of at most `batch_size` decoded pictures."""


def report(predictor: PicturePredictor, arguments: list[str], as_json: bool, drawing: Drawing | None = None) -> int:
  """Prints the answer for each picture, or to stderr why it cannot be read.

  Args:
    predictor: gives the answers.
    arguments: files, folders and patterns.
    as_json: prints one JSON object a line instead of a table.
    drawing: where to draw the objects that were found; only for a task that has `answer_as_boxes`.

  Returns:
    How many pictures could not be read, including arguments that name none.

  Raises:
    StorageError: a bucket that does not answer.
  """
  pictures = picture_files.find(arguments)
  width = max(len(printable(picture.path)) for picture in pictures)
  if not as_json:
    print(f"{'image':{width}}  {predictor.task.table_heading}", flush=True)
  batch_size = next((size for size in predictor.batch_sizes if size >= len(pictures)), predictor.batch_sizes[-1])
  progress, began, failed, done = ProgressLine(sys.stderr, terminal_seconds=1), time.monotonic(), 0, 0
  for group in picture_files.decoded(pictures, predictor.decode, batch_size):
    decoded = [picture.decoded for picture in group if not picture.wrong]
    answers = iter(predictor.answers(decoded, batch_size) if decoded else ())
    progress.clear()
    for path, wrong, _ in group:
      if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        failed += 1
      else:
        answer = next(answers)
        for line in _lines(predictor.task, path, answer, width, as_json):
          print(line)
        if drawing:
          failed += not _draw(drawing, path, predictor.task.answer_as_boxes(answer))
    sys.stdout.flush()
    done += len(group)
    if done < len(pictures):
      progress.show(_so_far(done, len(pictures), time.monotonic() - began))
  if failed:
    print(f"error: {failed} of {len(pictures)} images could not be read", file=sys.stderr)
  return failed


def _draw(drawing: Drawing, path: str, boxes: list) -> bool:
  """Whether a picture, which was read once already, could be drawn; prints why not."""
  try:
    drawing.add(path, boxes)
  except (FileNotFoundError, PictureError) as error:
    print(f"error: {printable(path)}: cannot be drawn: {error}", file=sys.stderr)
    return False
  return True


def _lines(task, path: str, answer, width: int, as_json: bool):
  """The lines to print for one picture; in a table, only the first of them has its path."""
  if as_json:
    yield json.dumps({"image": path} | task.answer_as_json(answer))
  else:
    for number, row in enumerate(task.answer_as_rows(answer)):
      yield f"{'' if number else printable(path):{width}}  {row}"


def _so_far(done: int, total: int, seconds: float) -> str:
  """`1,200 of 10,000 pictures, 85/s, 1 min 43 s left`."""
  rate = done / max(seconds, 1e-9)
  return f"{done:,} of {total:,} pictures, {rate:,.0f}/s, {duration((total - done) / rate)} left"
