"""The paper's ImageNet recipe (section 4): batch 1024, 300,000 steps, learning rate linear from 0.5 to 0.

    python -m shufflenet_jax.train --config=configs/imagenet.py:scale=1.0,groups=3 --workdir=gs://BUCKET/1x_g3 \\
        --config.data.data_dir=gs://BUCKET/tensorflow_datasets

Arguments: network (shufflenet_v1 unless given; see NETWORKS below) and any field of its own, for instance
scale=2.0,groups=3,se=True or network=mobilenet_v1,scale=0.5 or network=resnet,mflops=38. And batch: the learning rate
goes with it (0.5 for 1024), the number of steps against it, and a larger one than the paper's is warmed up for 5
epochs (Goyal et al., 2017, who saw that rule hold up to 8192). 128 images a chip fill a TPU's lanes:

  v5litepod-8, v6e-8, v4-16, v5p-16     8 chips    batch=1024, the paper's own
  v5litepod-16, v6e-16, v4-32, v5p-32   16 chips   batch=2048
  v5litepod-32, v6e-32, v4-64, v5p-64   32 chips   batch=4096
  v5litepod-64, v6e-64, v4-128          64 chips   batch=8192

Hardware: any TPU slice or GPUs whose number divides the batch; the paper used four GPUs. What a slice would take:
`python -m shufflenet_jax.tpu.plan`.
To expect: the paper's top-1 error, 32.6 % for 1x g=3 (Table 2). Not yet measured with this code.
"""

import ast

import ml_collections

# The fields of each network, with their defaults.
NETWORKS = {
  "shufflenet_v1": {
    "groups": 3,  # 1, 2, 3, 4 or 8
    "scale": 1.0,  # times the channels of Table 1: 0.25, 0.5, 1.0, 1.5, 2.0 and between
    "shuffle": "paper",  # or "release" (the order of the authors' checkpoints) or "none" (Table 3)
    "shortcut_first": True,  # in the concatenation; False as in pytorchcv
    "se": False,  # squeeze-and-excitation (Table 5)
    "repeats": (4, 8, 4),  # units of Stages 2, 3, 4; (2, 4, 2) is Table 5's shallow network
    "stem": 0,  # channels of Conv1; 0: 12 below 1x, 24 from 1x, 48 from 2x
    "classifier_bias": True,
    "lowering": "auto",  # how the convolutions are computed: auto, or reference, dense, split (models/lowering.py)
  },
  "mobilenet_v1": {"scale": 1.0},  # Table 5
  "vgg16": {},  # Table 6
  "googlenet": {},
  "alexnet": {},
  "squeezenet": {},
  "vgg_like": {"mflops": 38.0},  # Table 4: 140, 38, 13 and between
  "resnet": {"mflops": 38.0},
  "xception_like": {"mflops": 38.0},
  "resnext": {"mflops": 38.0},
}
WITHOUT_BATCH_NORM = ("vgg16", "alexnet", "squeezenet")

PAPER_BATCH = 1024
TRAINING_IMAGES = 1_281_167
WARMUP_EPOCHS = 5


def get_config(arguments: str = "scale=1.0,groups=3"):
  """A config with every field there is; `arguments` is `name=value,...`, see above."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = ""  # a checkpoint to fine-tune: its network and picture scaling are taken, a new head if need be
  config.num_train_steps = 300_000
  config.batch_size = PAPER_BATCH  # global
  config.eval_batch_size = 1024  # global
  config.accumulate_steps = 1  # micro-batches per step, where a device's share of the batch does not fit
  config.batch_norm_group = 0  # images whose statistics batch norm takes together; 0: a device's, or a micro-batch's
  config.log_every_steps = 100
  config.eval_every_steps = 5_000
  config.checkpoint_every_steps = 1_000
  config.keep_checkpoints = 3  # newest; the best evaluated one is kept besides
  config.max_skipped_steps = 0  # whose loss or gradients are not finite; one more ends the run, with a dump of the step
  config.peer_timeout_seconds = 60  # without a sign of life of another host, after which the run ends, to be restarted

  given = dict(argument.partition("=")[::2] for argument in arguments.split(",") if argument)
  name, batch = given.pop("network", "shufflenet_v1"), given.pop("batch", str(PAPER_BATCH))
  if name not in NETWORKS:
    raise ValueError(f"network={name} is not one of {', '.join(NETWORKS)}")
  config.model = ml_collections.ConfigDict({"network": name, **NETWORKS[name]})
  for field, value in given.items():
    if field not in NETWORKS[name]:
      raise ValueError(f"network {name} takes no argument {field!r}; it takes {', '.join([*NETWORKS[name], 'batch'])}")
    default = NETWORKS[name][field]
    try:
      config.model[field] = value if isinstance(default, str) else _number(value, type(default))
    except (ValueError, SyntaxError):
      raise ValueError(f"{field}={value} is not a value like {default!r}") from None
  config.model.num_classes = 1000
  config.model.dtype = "bfloat16"  # of compute; parameters and batch statistics are float32

  config.data = ml_collections.ConfigDict()
  config.data.name = "imagenet2012"  # any TFDS image-classification dataset; or "folder"
  config.data.data_dir = ""  # "": TFDS's default, ~/tensorflow_datasets; of a folder: DIR/<split>/<class>/picture.jpg
  config.data.train_split = "train"  # or "train[:90%]"; of a folder: its name
  config.data.eval_split = "validation"
  config.data.image_size = 224
  config.data.eval_resize = 256  # short side before the centre crop
  config.data.min_crop_area = 0.08
  config.data.max_crop_aspect = 4 / 3
  config.data.flip = True
  config.data.color_jitter = 0.0  # brightness, contrast and saturation are each scaled by 1 - this to 1 + this
  config.data.antialias = True  # when evaluation makes pictures smaller; training does not
  config.data.shuffle_bytes = 1 << 30  # undecoded records in memory, over all hosts
  config.data.max_bad_train = 100  # pictures that cannot be decoded and are skipped, by each host
  config.data.max_bad_eval = 0  # by each host; evaluation leaves them out and says how many
  config.data.mean = (123.675, 116.28, 103.53)  # RGB, 0-255
  config.data.std = (58.395, 57.12, 57.375)

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.learning_rate = 0.5  # falls linearly to 0
  config.optimizer.warmup_steps = 0
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 4e-5
  config.optimizer.decay = "kernels"  # which parameters decay: kernels (not biases and norms), or all
  config.optimizer.label_smoothing = 0.0

  if config.model.get("scale", 1.0) < 1:
    config.data.min_crop_area = 0.49  # section 4: less aggressive scale augmentation for small networks
  if name in WITHOUT_BATCH_NORM:
    config.optimizer.learning_rate = 0.01  # as their papers; 0.5 diverges without batch norm
  if not (batch.isdecimal() and int(batch)):
    raise ValueError(f"batch={batch} is not a positive number like {PAPER_BATCH}")
  _scale_to_batch(config, int(batch))
  return config


def without_batch(arguments: str) -> str:
  """The arguments, for a config that sets its own batch; raises a ValueError where they do."""
  if "batch=" in arguments:
    raise ValueError("batch is an argument of configs/imagenet.py alone; here --config.batch_size sets it")
  return arguments


def _scale_to_batch(config, batch: int):
  """The same epochs with another batch: the linear scaling rule, with warm-up where the rate is above the paper's."""
  ratio = batch / PAPER_BATCH
  config.batch_size = batch
  config.optimizer.learning_rate *= ratio
  config.num_train_steps = round(config.num_train_steps / ratio)
  config.eval_every_steps = max(round(config.eval_every_steps / ratio), 1)
  if ratio > 1:
    config.optimizer.warmup_steps = round(WARMUP_EPOCHS * TRAINING_IMAGES / batch)


def _number(text: str, kind: type):
  value = ast.literal_eval(text)
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:
    raise ValueError
  return value
