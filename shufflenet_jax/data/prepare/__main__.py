"""Makes a sharded TFDS dataset from pictures.

They come in class folders, tars of them, or ImageNet's two tars, read in place; or with boxes, annotated as in COCO or
Pascal VOC.

    python -m shufflenet_jax.data.prepare --name=imagenet2012 --train=ILSVRC2012_img_train.tar \\
        --validation=ILSVRC2012_img_val.tar --to=$HOME/tensorflow_datasets [--short_side=256]
    python -m shufflenet_jax.data.prepare --name=flowers --train=photos/train --validation=photos/val --to=DIR
    python -m shufflenet_jax.data.prepare --name=street --train=street/annotations/instances_train.json \\
        --validation=street/annotations/instances_val.json --to=DIR [--train_pictures=DIR] [--validation_pictures=DIR]
    python -m shufflenet_jax.data.prepare --name=cells --train=cells/ImageSets/Main/trainval.txt \\
        --validation=cells/ImageSets/Main/test.txt --to=DIR

The dataset is DIR/<name>/1.0.0 (for imagenet2012 the version of TFDS's own builder) with the splits train and
validation; without boxes, its labels are the class folders in alphabetical order. If the command is stopped, run it
again: it continues with the shards that are missing.

Each picture is decoded once, to check that training can read it, and its file is stored byte for byte. With
--short_side, a picture with a larger short side is shrunk as evaluation would shrink it (Pillow, bilinear with
antialiasing) and stored as JPEG with 4:2:0 chroma, RGB or grayscale. Unless --upright is given, the EXIF orientation is
ignored, as by TensorFlow, torchvision and the paper's pipelines. Pictures are read in random order, so tars should be
on an SSD.

Boxes. A .json file is taken for COCO's, a .txt file for a list of Pascal VOC's. The dataset has the features of TFDS's
coco/2017. Every picture has to be there, and to have the size that its annotation states.

  COCO      X/annotations/instances_Y.json has its pictures in X/Y or, if there is no such folder, beside the file;
            --train_pictures and --validation_pictures name others. Both splits must have the same categories. Labels
            are in the order of category ids, which categories.json in the dataset's folder keeps. An annotation without
            an area gets that of its box.
  VOC       X/ImageSets/Main/Y.txt names X/Annotations/NAME.xml. The picture is the XML's filename in X/JPEGImages or,
            if there is no such file, NAME.jpg. Labels are all names of objects in either split, in alphabetical order.
            VOC counts pixels from 1 and includes xmax and ymax; the dataset's boxes are [xmin - 1, xmax) and
            [ymin - 1, ymax).

  crowd (COCO), difficult (VOC)     kept with is_crowd, neither object nor background in training and evaluation
  no or negative size               left out, and counted (VOC: xmax <= xmin or ymax <= ymin)
  sticking out of the picture       clipped to it, and counted
  wholly outside                    an error
  more than 100 in a picture        an error
  a picture without boxes           kept

Boxes are fractions of height and width, so they fit a picture that --short_side has shrunk; areas stay those of the
original, so that AP by size is then not COCO's. With --upright, boxes have to be those of the upright picture.
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
