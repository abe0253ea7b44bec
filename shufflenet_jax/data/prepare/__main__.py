"""Makes a sharded TFDS dataset of pictures: of class folders, tars of them, or ImageNet's own two tars, read in place.

    python -m shufflenet_jax.data.prepare --name=imagenet2012 --train=ILSVRC2012_img_train.tar \\
        --validation=ILSVRC2012_img_val.tar --to=$HOME/tensorflow_datasets [--short_side=256]
    python -m shufflenet_jax.data.prepare --name=flowers --train=photos/train --validation=photos/val --to=DIR

It makes DIR/<name>/1.0.0 (for imagenet2012 the version of TFDS's own builder) with the splits train and validation;
labels are the class folders in alphabetic order. Stopped, it goes on when run again.

Each picture is decoded once, so that nothing is stored that training could not read. It is stored byte for byte. With
--short_side, one whose short side is larger is made smaller to it as evaluation does (Pillow, bilinear with
antialiasing) and stored as JPEG with 4:2:0 chroma, RGB or grayscale. The EXIF orientation is ignored, as by TensorFlow,
torchvision and the paper's pipelines, unless --upright. Pictures are read in random order: tars should lie on an SSD.
"""

import dataclasses
import sys
import warnings

from absl import flags

from shufflenet_jax import cli, signals
from shufflenet_jax.data.prepare.dataset import QUALITY, Options, prepare
from shufflenet_jax.errors import INTERRUPTED


def define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("name", None, "Name of the dataset: a-z, 0-9 and _.", values)
  cli.define_path(values, "train", "Folder or tar of the training pictures.")
  cli.define_path(values, "validation", "Folder or tar of the validation pictures.")
  cli.define_path(values, "to", "Folder of TFDS datasets to write into, the later --config.data.data_dir.")
  flags.DEFINE_integer(
    "short_side", None, "Pixels to make larger pictures' short sides smaller to.", 16, flag_values=values
  )
  flags.DEFINE_integer("quality", None, f"With --short_side: JPEG quality, else {QUALITY}.", 1, 100, flag_values=values)
  flags.DEFINE_bool("upright", False, "With --short_side: turn the pixels as the EXIF orientation says.", values)
  flags.DEFINE_integer(
    "shards",
    None,
    "Files per split, else one per 128 MB of source pictures and at least 16.",
    1,
    99_999,
    flag_values=values,
  )
  flags.DEFINE_bool(
    "allow_partial", False, "Take a part of ImageNet; labels go by number and name, so they are right.", values
  )
  flags.DEFINE_integer(
    "skip_bad", 0, "Leave out up to this many pictures that cannot be decoded.", 0, flag_values=values
  )


def main(values: flags.FlagValues) -> int | None:
  # Pillow warns of odd tags and huge pictures; what it cannot decode it raises.
  warnings.filterwarnings("ignore", module="PIL")
  options = Options(**{field.name: getattr(values, field.name) for field in dataclasses.fields(Options)})
  try:
    with signals.held(signals.raise_interrupt):
      prepare(options)
  except KeyboardInterrupt:
    print("\nstopped; whole shards are kept, and the same command goes on", file=sys.stderr)
    return INTERRUPTED
  return None


command = cli.Command(main, define_flags, required=("name", "train", "validation", "to"))

if __name__ == "__main__":
  command()
