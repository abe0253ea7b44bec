"""A detector for your own pictures with boxes, prepared by `data.prepare` from COCO's or Pascal VOC's annotations.

    python -m shufflenet_jax.train --config=configs/boxes.py --config.data.name=cells --config.model.num_classes=3 \\
        --config.init_from=runs/imported --workdir=runs/cells

Arguments: backbone (shufflenet_v1 or mobilenet_v1) and any field of its own; with init_from, the checkpoint of a
classifier determines the backbone.
Hardware: two x86-64 CPU cores. Time: 14 min and 18 min for two runs, shared with other work.
Result: AP50 72.8 % and 73.2 % (AP 41.6 and 43.3 %) on the 72 test photographs of BCCD, three kinds of blood cells, for
seeds 0 and 1, from the authors' 0.5x g=3 file. Measured, 2026-11-27.
README.md says how such a dataset is prepared. Pictures have 320x240 pixels, and regions are cut to 7x7 positions in
place of the 14x14 of configs/coco.py, which takes half the time. Small objects need larger pictures: data.short_side,
long_side, image_size and eval_resize.
"""

from shufflenet_jax.config import arguments as network_arguments


def get_config(arguments: str = "backbone=shufflenet_v1,scale=0.5,groups=3"):
  """A small network on pictures of 320 pixels, for a few hundred pictures."""
  config = network_arguments.detector_config_for(network_arguments.parse(arguments))
  config.num_train_steps = 1000
  config.batch_size = 4
  config.eval_batch_size = 4
  config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps = 50, 500, 250

  config.model.num_classes = 3
  config.model.dtype = "float32"

  config.data.name = "cells"
  config.data.short_side, config.data.long_side = 240, 320
  config.data.image_size = config.data.eval_resize = 320

  config.detection.anchor_sizes = (16, 32, 64, 128)
  config.detection.crop = 7
  config.detection.rois = 64

  config.optimizer.learning_rate = 0.01
  config.optimizer.warmup_steps = 100
  return config
