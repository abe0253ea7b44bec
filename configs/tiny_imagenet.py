"""Tiny ImageNet, photographs of 200 of ImageNet's classes: the networks of the paper's tables, in minutes on a CPU.

    python -m shufflenet_jax.train --config=configs/tiny_imagenet.py:scale=0.25,groups=3 --workdir=runs/tiny

Arguments: those of configs/imagenet.py except batch. README.md says how the data are prepared.
The photographs have 32x32 pixels. Evaluation enlarges the whole picture to 64x64 (bilinear); training enlarges a random
part of it, 49 to 100 % of the area, which may begin between two pixels. At 64x64, Stages 2 to 4 have 8x8, 4x4 and 2x2
positions, where at 224x224 they have 28x28, 14x14 and 7x7.
Hardware: one core of an AMD EPYC (Zen 4), beside a second run; two cores of an Intel Xeon for the result below.
Time: 5 min 30 s to 10 min 30 s of training on the one core; 16 to 47 minutes on the two, with other work.
Result: top-1 20.20, 19.63 and 20.28 % on the 10,000 validation photographs for seeds 0, 1 and 2 of
scale=0.25,groups=3. Measured, 2026-11-27 and 2026-11-28; docs/results has the other networks.
The recipe differs from the paper's in batch (64) and length (a million images, ten epochs); the learning rate of 0.2 is
higher in proportion to the batch than the paper's 0.5 for 1024.
"""

from shufflenet_jax.config import arguments as network_arguments
from shufflenet_jax.models.build import WITHOUT_BATCH_NORM


def get_config(arguments: str = "scale=0.25,groups=3"):
  """The paper's recipe for a small network, with a smaller batch and for ten epochs."""
  config = network_arguments.config_for(network_arguments.parse(arguments))
  config.num_train_steps = 16_000
  config.batch_size = 64  # trains a third faster on two CPU cores than 256, and better
  config.batch_norm_group = 64  # the same on any number of devices
  config.eval_batch_size = 500
  config.log_every_steps = 400
  config.eval_every_steps = 4000
  config.checkpoint_every_steps = 2000
  config.keep_checkpoints = 1

  config.model.num_classes = 200
  config.model.dtype = "float32"

  config.data.name = "tiny_imagenet"
  config.data.in_memory = True
  config.data.image_size = 64
  config.data.eval_resize = 64
  config.data.min_crop_area = 0.49  # section 4: less aggressive scale augmentation for small networks

  config.optimizer.learning_rate = 0.01 if config.model.network in WITHOUT_BATCH_NORM else 0.2
  config.optimizer.warmup_steps = 400
  return config
