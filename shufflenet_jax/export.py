"""Writes a checkpoint's network as a file for phones, browsers, servers and other runtimes.

    python -m shufflenet_jax.export --checkpoint=WORKDIR_OR_CHECKPOINT --to=FILE.tflite|FILE.onnx|FILE.stablehlo

The suffix chooses the format: LiteRT (TensorFlow Lite), ONNX, or StableHLO (of `jax.export`, for CPU, TPU and CUDA).
The file takes `images`, uint8 RGB (n, height, width, 3), and gives `logits`, float32 (n, classes). The network in it
subtracts the mean of pixels and divides by their standard deviation; batch norm is merged into the convolutions. The
file's metadata has the class names and how to prepare pictures. The file is compared with the checkpoint before it is
written. `predict --checkpoint=FILE` runs it.

--int8 makes kernels, or everything, integers of 8 bits. It needs a folder of pictures: it calibrates on some of them,
and reports for how many of the others the file gives the same answer as the checkpoint.

If you installed the package with pip, this command needs an extra: python -m pip install 'shufflenet_jax[export]'
"""

import re
import shlex
import sys

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError
from shufflenet_jax.progress import ProgressLine

SHUFFLES = ("explicit", "dense")
LARGEST_BATCH = 256  # a batch of noise is computed for the comparison


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "checkpoint", "A work directory (its newest checkpoint) or WORKDIR/checkpoints/<step>.")
  cli.define_path(values, "to", "The file to write: FILE.tflite, FILE.onnx or FILE.stablehlo.")
  flags.DEFINE_string("batch", "any", "How many pictures the file takes at once: any, or a number.", values)
  flags.DEFINE_enum(
    "shuffle",
    "explicit",
    SHUFFLES,
    "explicit: grouped convolutions, and a transpose for each shuffle. dense: convolutions of one group, which contain "
    "the shuffle, for runtimes that refuse grouped ones.",
    values,
  )
  flags.DEFINE_enum(
    "int8",
    None,
    ("weights", "full"),
    "weights: kernels of 8 bits, a third of the size; computed in float32. full: all in 8 bits (.tflite only).",
    values,
  )
  cli.define_path(values, "calibrate", "For --int8: a folder of pictures such as the network will see, a few hundred.")


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.checkpoints import checkpoint
  from shufflenet_jax.deployment import exporting, network

  options = exporting.Options(
    batch=_batch(values.batch),
    dense=values.shuffle == "dense",
    int8=values.int8 or "",
    calibrate=values.calibrate or "",
  )
  exporting.check(values.to, options)
  source = checkpoint.find(values.checkpoint)
  print(f"exporting {source.path}", flush=True)
  progress = ProgressLine(sys.stderr, terminal_seconds=1)
  try:
    size, result = exporting.write(
      network.of_checkpoint(source),
      values.to,
      options,
      show=lambda what, done, total: progress.show(f"{what} {done:,} of {total:,} pictures"),
    )
  finally:
    progress.clear()
  print(f"{values.to}: {size / 1e6:.2f} MB; {result}")
  print(f"next: python -m shufflenet_jax.predict --checkpoint={shlex.quote(values.to)} picture.jpg")


def _batch(text: str) -> int | None:
  if text == "any":
    return None
  if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= LARGEST_BATCH:
    raise UserError(f"--batch={text} is neither any nor a number from 1 to {LARGEST_BATCH:,}")
  return int(text)


command = cli.Command(main, define_flags, required=("checkpoint", "to"))

if __name__ == "__main__":
  command()
