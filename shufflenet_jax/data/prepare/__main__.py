"""Makes a sharded TFDS dataset from pictures: from class folders, tars of them, or ImageNet's two tars, read in place.

    python -m shufflenet_jax.data.prepare --name=imagenet2012 --train=ILSVRC2012_img_train.tar \\
        --validation=ILSVRC2012_img_val.tar --to=$HOME/tensorflow_datasets [--short_side=256]
    python -m shufflenet_jax.data.prepare --name=flowers --train=photos/train --validation=photos/val --to=DIR

The dataset is DIR/<name>/1.0.0 (for imagenet2012 the version of TFDS's own builder) with the splits train and
validation; its labels are the class folders in alphabetical order. If the command is stopped, run it again: it
continues with the shards that are missing.

Each picture is decoded once, to check that training can read it, and its file is stored byte for byte. With
--short_side, a picture with a larger short side is shrunk as evaluation would shrink it (Pillow, bilinear with
antialiasing) and stored as JPEG with 4:2:0 chroma, RGB or grayscale. Unless --upright is given, the EXIF orientation is
ignored, as by TensorFlow, torchvision and the paper's pipelines. Pictures are read in random order, so tars should be
on an SSD.
"""

import dataclasses
import sys
import warnings

from absl import flags

from shufflenet_jax import cli, signals
from shufflenet_jax.data.prepare.options import Options
from shufflenet_jax.errors import INTERRUPTED


def define_flags(values: flags.FlagValues) -> None:
  for field in dataclasses.fields(Options):
    default = None if field.default is dataclasses.MISSING else field.default
    text, (lower, upper) = field.metadata["help"], field.metadata["bounds"]
    if field.metadata["is_path"]:
      cli.define_path(values, field.name, text)
    elif field.type is str:
      flags.DEFINE_string(field.name, default, text, values)
    elif field.type is bool:
      flags.DEFINE_bool(field.name, default, text, values)
    else:
      flags.DEFINE_integer(field.name, default, text, lower, upper, flag_values=values)


def main(values: flags.FlagValues) -> int | None:
  from shufflenet_jax.data.prepare.dataset import prepare

  # Pillow warns about odd tags and huge pictures; if it cannot decode a picture, it raises an error anyway.
  warnings.filterwarnings("ignore", module="PIL")
  options = Options(**{field.name: getattr(values, field.name) for field in dataclasses.fields(Options)})
  try:
    with signals.held(signals.raise_interrupt):
      prepare(options)
  except KeyboardInterrupt:
    print("\nstopped; complete shards are kept, and the same command continues", file=sys.stderr)
    return INTERRUPTED
  return None


command = cli.Command(main, define_flags, required=("name", "train", "validation", "to"))

if __name__ == "__main__":
  command()
