"""The paper's ImageNet recipe (section 4): batch 1024, 300,000 steps, learning rate linear from 0.5 to 0.

    python -m shufflenet_jax.train --config=configs/imagenet.py:scale=1.0,groups=3 --workdir=gs://BUCKET/1x_g3 \\
        --config.data.data_dir=gs://BUCKET/tensorflow_datasets

Arguments: scale (0.25, 0.5, 1.0, 1.5, 2.0 and between), groups (1, 2, 3, 4, 8), shuffle (True, False).
Hardware: any TPU slice or GPUs whose number divides the batch; the paper used four GPUs.
To expect: the paper's top-1 error, 32.6 % for 1x g=3 (Table 2). Not yet measured with this code.
"""

import ast

import ml_collections


def get_config(arguments: str = "scale=1.0,groups=3"):
  """A config with every field there is; `arguments` is `name=value,...`."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_train_steps = 300_000
  config.batch_size = 1024  # global
  config.eval_batch_size = 1024  # global
  config.accumulate_steps = 1  # micro-batches per step, where a device's share of the batch does not fit
  config.log_every_steps = 100
  config.eval_every_steps = 5_000
  config.checkpoint_every_steps = 1_000
  config.keep_checkpoints = 3  # newest; the best evaluated one is kept besides

  config.model = ml_collections.ConfigDict()
  config.model.groups = 3
  config.model.scale = 1.0
  config.model.num_classes = 1000
  config.model.shuffle = True
  config.model.repeats = (4, 8, 4)
  config.model.dtype = "bfloat16"  # of compute; parameters and batch statistics are float32

  config.data = ml_collections.ConfigDict()
  config.data.name = "imagenet2012"  # any TFDS image-classification dataset
  config.data.data_dir = ""  # "": TFDS's default, ~/tensorflow_datasets
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.image_size = 224
  config.data.eval_resize = 256  # short side before the centre crop
  config.data.min_crop_area = 0.08
  config.data.max_crop_aspect = 4 / 3
  config.data.flip = True
  config.data.shuffle_buffer = 16_384  # undecoded records, about 110 KB each
  config.data.mean = (123.675, 116.28, 103.53)  # RGB, 0-255
  config.data.std = (58.395, 57.12, 57.375)

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.learning_rate = 0.5  # falls linearly to 0
  config.optimizer.warmup_steps = 0
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 4e-5
  config.optimizer.decay = "kernels"  # which parameters decay: kernels (not biases and norms), or all
  config.optimizer.label_smoothing = 0.0

  allowed = ("scale", "groups", "shuffle")
  for argument in filter(None, arguments.split(",")):
    name, _, value = argument.partition("=")
    if name not in allowed:
      raise ValueError(f"configs/imagenet.py takes no argument {name!r}; it takes {', '.join(allowed)}")
    try:
      config.model[name] = type(config.model[name])(ast.literal_eval(value))
    except (ValueError, SyntaxError):
      raise ValueError(f"configs/imagenet.py:{argument}: {value!r} is not a value for {name}") from None
  if config.model.scale < 1:
    config.data.min_crop_area = 0.49  # section 4: less aggressive scale augmentation for small networks
  return config
