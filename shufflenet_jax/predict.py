"""Names what is in pictures: top-5 classes and probabilities for each.

    python -m shufflenet_jax.predict --checkpoint=WORKDIR_OR_CHECKPOINT [--json] IMAGE|FOLDER|GLOB...
    python -m shufflenet_jax.predict --checkpoint=FILE.tflite|FILE.onnx|FILE.stablehlo [--json] IMAGE|FOLDER|GLOB...

An argument is a file, a folder (all pictures in it and its subfolders) or a pattern in quotes, such as
"photos/**/*.jpg"; local or gs://. Answers are in the order of the arguments. Pictures that cannot be read are named on
stderr, and the exit status is then 1. A bucket that does not answer ends the command.

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


def main(values: flags.FlagValues, arguments: list[str]) -> int:
  if not arguments:
    raise UserError("no images given; name files, folders or patterns after the flags")
  from shufflenet_jax.prediction.report import report

  return 1 if report(_predictor(values.checkpoint), arguments, values.json) else 0


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
