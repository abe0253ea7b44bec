"""Faster R-CNN on COCO (section 4.4, Table 7): train on train2017, AP on val2017.

    python -m shufflenet_jax.train --config=configs/coco.py:size=300,backbone=shufflenet_v1,scale=2.0,groups=3 \\
        --config.init_from=gs://BUCKET/2x_g3 --workdir=gs://BUCKET/coco_2x --config.data.data_dir=gs://BUCKET/datasets

Arguments: size (300 or 600: the short side of a picture, whose long side has at most 500 or 1000), backbone
(shufflenet_v1 or mobilenet_v1), and any field of the backbone's own. With init_from, the checkpoint of a classifier
determines the backbone.

Nobody has run this config on COCO yet: there is no result to expect but the paper's. Its Table 7 gives, for 300 and 600
pixels, mAP [.5, .95]: ShuffleNet 2x g=3 18.7 and 25.0 %, 1x g=3 14.5 and 19.8 %, MobileNet 16.4 and 19.8 % as reported
and 14.9 and 19.3 % as the authors implemented it.
On a v5litepod-8 all steps take, by the TPU compiler's estimates, which lack sorts, gathers and the evaluation:

    network, pixels   chip-hours   cycles of a step   memory per chip   pictures/s for the host to decode
    2x g=3, 300             1.92             84.7 M          2.67 GiB                               1,133
    1x g=3, 300             0.98             43.3 M          1.64 GiB                               2,219
    1x g=3, 600             4.74            104.6 M          2.91 GiB                                 459

(`python -m shufflenet_jax.tpu.plan --config=configs/coco.py:size=300,scale=2.0,groups=3 --topology=v5e:2x4`,
2026-11-28; it plans other slices, too.)

From the paper: Faster R-CNN by the public Caffe code with its default settings; training on COCO's train and validation
pictures except 5,000, on which AP is measured. COCO 2017's train and validation splits are these two sets.
From that code (py-faster-rcnn, COCO, VGG16, end to end): two pictures a step, 490,000 steps, learning rate 0.001,
momentum 0.9, weight decay 5e-4; shufflenet_jax/tasks/detection/settings.py has the other numbers, each with its source.
Inferred, because neither the paper nor the code says it: Table 7's "300x" is the length of the short side, with at most
500 for the long one; the stages up to stride 16 see the picture, and Stage 4 sees crops of their map; batch norm keeps
the statistics of the classifier.
Different here: pictures lie on a square canvas of 512 or 1,024 pixels; anchors for 300 pixels are half as large; a
batch of 64 or 32 with a learning rate in proportion, warmed up for 500 steps, which falls linearly to 0 (the code
divides it by 10 after 350,000 of its steps).
"""

from shufflenet_jax.config import arguments as network_arguments
from shufflenet_jax.errors import UserError

CAFFE_BATCH, CAFFE_STEPS, CAFFE_LEARNING_RATE = 2, 490_000, 0.001
# Size -> (long side, canvas, batch, sides of anchors): the canvas is square, for landscape and portrait pictures.
SIZES = {300: (500, 512, 64, (32, 64, 128, 256)), 600: (1000, 1024, 32, (64, 128, 256, 512))}


def get_config(arguments: str = "size=300,backbone=shufflenet_v1,scale=2.0,groups=3"):
  """The recipe for the size and backbone that `arguments` name; see above."""
  given = network_arguments.parse(arguments)
  size = given.pop("size", "300")
  if size not in map(str, SIZES):
    raise UserError(f"size={size} is not one of {', '.join(map(str, SIZES))}")
  config = network_arguments.detector_config_for(given)
  long_side, canvas, batch, anchor_sizes = SIZES[int(size)]
  config.data.short_side, config.data.long_side = int(size), long_side
  config.data.image_size = config.data.eval_resize = canvas
  config.detection.anchor_sizes = anchor_sizes
  config.batch_size = config.eval_batch_size = batch
  config.num_train_steps = CAFFE_STEPS * CAFFE_BATCH // batch
  config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps = 100, 2_000, 500

  config.model.num_classes = 80
  config.data.name = "coco/2017"

  config.optimizer.learning_rate = CAFFE_LEARNING_RATE * batch / CAFFE_BATCH
  config.optimizer.warmup_steps = 500
  config.optimizer.weight_decay = 5e-4
  return config
