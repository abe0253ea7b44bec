"""Tiny ImageNet, 200 of ImageNet's classes at 64x64 pixels: the paper's networks on photographs, in minutes on a CPU.

python -m shufflenet_jax.train --config=configs/tiny_imagenet.py:scale=0.25,groups=3 --workdir=runs/tiny
"""

from shufflenet_jax.config import arguments as network_arguments
from shufflenet_jax.models.build import WITHOUT_BATCH_NORM


def get_config(arguments: str = "scale=0.25,groups=3"):
  """The paper's recipe for a small network, at a quarter of its batch and for ten epochs."""
  config = network_arguments.config_for(network_arguments.parse(arguments))
  config.num_train_steps = 4000
  config.batch_size = 256
  config.eval_batch_size = 500
  config.log_every_steps = 100
  config.eval_every_steps = 1000
  config.checkpoint_every_steps = 500
  config.keep_checkpoints = 1

  config.model.num_classes = 200
  config.model.dtype = "float32"

  config.data.name = "tiny_imagenet"
  config.data.in_memory = True
  config.data.image_size = 64
  config.data.eval_resize = 64
  config.data.min_crop_area = 0.49

  config.optimizer.learning_rate = 0.01 if config.model.network in WITHOUT_BATCH_NORM else 0.5
  config.optimizer.warmup_steps = 100
  return config
