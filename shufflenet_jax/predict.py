"""Names what is in pictures: top-5 classes and probabilities for each.

    python -m shufflenet_jax.predict --checkpoint=WORKDIR_OR_CHECKPOINT [--json] IMAGE|FOLDER|GLOB...

An argument is a file, a folder (all pictures in it and its subfolders) or a pattern in quotes, such as
"photos/**/*.jpg"; local or gs://. Answers are in the order of the arguments. Pictures that cannot be read are named on
stderr, and the exit status is then 1. A bucket that does not answer ends the command.
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "checkpoint", "A work directory (its newest checkpoint) or WORKDIR/checkpoints/<step>.")
  flags.DEFINE_bool("json", False, "Print one JSON object per image instead of a table.", values)


def main(values: flags.FlagValues, arguments: list[str]) -> int:
  if not arguments:
    raise UserError("no images given; name files, folders or patterns after the flags")
  from shufflenet_jax.checkpoints import checkpoint
  from shufflenet_jax.prediction.predictor import Predictor
  from shufflenet_jax.prediction.report import report

  return 1 if report(Predictor(checkpoint.find(values.checkpoint)), arguments, values.json) else 0


command = cli.Command(main, define_flags, required=("checkpoint",), takes_arguments=True)

if __name__ == "__main__":
  command()
