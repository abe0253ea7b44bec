"""Names what is in pictures: top-5 classes and probabilities for each; or for a detector, objects and their boxes.

    python -m shufflenet_jax.predict --checkpoint=WORKDIR_OR_CHECKPOINT [--json] [--draw=DIR] IMAGE|FOLDER|GLOB...
    python -m shufflenet_jax.predict --checkpoint=FILE.tflite|FILE.onnx|FILE.stablehlo [--json] IMAGE|FOLDER|GLOB...

An argument is a file, a folder (all pictures in it and its subfolders) or a pattern in quotes, such as
"photos/**/*.jpg"; local or gs://. Answers are in the order of the arguments. Pictures that cannot be read are named on
stderr, and the exit status is then 1. A bucket that does not answer ends the command.

A detector's boxes are in pixels of the picture. The table, and the copies of the pictures that --draw writes to DIR,
show only boxes with a score of 0.3 or more; --json has all, as [x, y, width, height].

A file that `python -m shufflenet_jax.export` wrote is run by its own runtime alone, without JAX (except .stablehlo) or
TensorFlow.
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

_CHECKPOINT = "A work directory (its newest checkpoint), WORKDIR/checkpoints/<step>, or a file that export wrote."


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "checkpoint", _CHECKPOINT)
  flags.DEFINE_bool("json", False, "Print one JSON object per image instead of a table.", values)
  cli.define_path(values, "draw", "Write each picture with the boxes of its objects to this folder.")


def main(values: flags.FlagValues, arguments: list[str]) -> int:
  if not arguments:
    raise UserError("no images given; name files, folders or patterns after the flags")
  from shufflenet_jax.prediction.report import report

  predictor = _predictor(values.checkpoint)
  drawing = _drawing(predictor, values.draw) if values.draw else None
  failed = report(predictor, arguments, values.json, drawing)
  if drawing and not values.json:
    print(f"{drawing.count} picture{'' if drawing.count == 1 else 's'} drawn to {drawing.folder}")
  return 1 if failed else 0


def _drawing(predictor, folder: str):
  if not hasattr(predictor.task, "answer_as_boxes"):
    raise UserError(f"--draw={folder} draws the boxes of a detector; this checkpoint gives a picture's class only")
  from shufflenet_jax.prediction.drawing import Drawing

  return Drawing(folder)


def _predictor(path: str):
  from shufflenet_jax.deployment import runtimes

  if runtimes.is_deployed(path):
    from shufflenet_jax.deployment.predictor import FilePredictor

    return FilePredictor(path)
  from shufflenet_jax.checkpoints import checkpoint
  from shufflenet_jax.prediction.predictor import Predictor

  return Predictor(checkpoint.find(path, others=f", or a file of export ({', '.join(runtimes.SUFFIXES)})"))


command = cli.Command(main, define_flags, required=("checkpoint",), takes_arguments=True)

if __name__ == "__main__":
  command()
