"""A detector for your own pictures with boxes, prepared by `data.prepare` from COCO's or Pascal VOC's annotations.

    python -m shufflenet_jax.train --config=configs/boxes.py --config.data.name=cells --config.model.num_classes=3 \\
        --config.init_from=runs/imported --workdir=runs/cells

Arguments: backbone (shufflenet_v1 or mobilenet_v1) and any field of its own; with init_from, the checkpoint of a
classifier determines the backbone.
Hardware: one core of an AMD EPYC (Zen 5); other work had the second one. Time: 11, 11 and 15 min for three runs.
Result: AP50 84.6, 81.0 and 77.5 % (AP 47.2, 44.4 and 44.0 %) on the 72 test photographs of BCCD, three kinds of blood
cells, for seeds 0, 1 and 2, from the authors' 0.5x g=3 file; from scratch 56.8, 59.5 and 57.2 % after 12 to 13 min.
Measured, 2026-11-28.
README.md says how such a dataset is prepared. Pictures have 480x360 pixels (data.short_side, long_side,
image_size and eval_resize set that), and regions are cut to 7x7 positions in place of the 14x14 of configs/coco.py,
which takes half the time. Small objects need large pictures: at 320x240, AP50 is 72.8 to 76.2 % after 1,000 steps.
Without init_from, set detection.train_statistics=true: batch norm has no statistics yet that could be kept.
"""

from shufflenet_jax.config import arguments as network_arguments


def get_config(arguments: str = "backbone=shufflenet_v1,scale=0.5,groups=3"):
  """A small network on pictures of 480 pixels, for a few hundred pictures."""
  config = network_arguments.detector_config_for(network_arguments.parse(arguments))
  config.num_train_steps = 600
  config.batch_size = 4
  config.eval_batch_size = 4
  config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps = 50, 300, 300

  config.model.num_classes = 3
  config.model.dtype = "float32"

  config.data.name = "cells"
  config.data.short_side, config.data.long_side = 360, 480
  config.data.image_size = config.data.eval_resize = 480

  config.detection.anchor_sizes = (16, 32, 64, 128)
  config.detection.crop = 7
  config.detection.rois = 64

  config.optimizer.learning_rate = 0.01
  config.optimizer.warmup_steps = 100
  return config
