"""The paper's ImageNet recipe (section 4): batch 1024, 300,000 steps, learning rate linear from 0.5 to 0.

    python -m shufflenet_jax.train --config=configs/imagenet.py:scale=1.0,groups=3 --workdir=gs://BUCKET/1x_g3 \\
        --config.data.data_dir=gs://BUCKET/tensorflow_datasets

Arguments: network (shufflenet_v1 unless given) and any field of its own, for instance scale=2.0,groups=3,se=True or
network=mobilenet_v1,scale=0.5 or network=resnet,mflops=38. The networks are listed in shufflenet_jax/models/build.py,
and a network's fields are the attributes of its module; all other fields are in shufflenet_jax/config/fields.py.

The argument batch scales the recipe: the learning rate is proportional to it, the number of steps inversely
proportional, and a batch above the paper's is warmed up for 5 epochs (Goyal et al., 2017, who saw that rule hold up to
8192). 128 images per chip fill a TPU's lanes:

  v5litepod-8, v6e-8, v4-16, v5p-16     8 chips    batch=1024, the paper's own
  v5litepod-16, v6e-16, v4-32, v5p-32   16 chips   batch=2048
  v5litepod-32, v6e-32, v4-64, v5p-64   32 chips   batch=4096
  v5litepod-64, v6e-64, v4-128          64 chips   batch=8192

Hardware: any TPU slice or GPUs whose number divides the batch; the paper used four GPUs. Time on a slice, estimated:
`python -m shufflenet_jax.tpu.plan`.
Result to expect: the paper's top-1 error, 32.6 % for 1x g=3 (Table 2). Not yet measured with this code.
"""

from shufflenet_jax.config import arguments as network_arguments
from shufflenet_jax.errors import UserError
from shufflenet_jax.models.build import WITHOUT_BATCH_NORM

PAPER_BATCH = 1024
TRAINING_IMAGES = 1_281_167
WARMUP_EPOCHS = 5


def get_config(arguments: str = "scale=1.0,groups=3"):
  """The recipe for the network and batch that `arguments` name; see above."""
  given = network_arguments.parse(arguments)
  batch = given.pop("batch", str(PAPER_BATCH))
  config = network_arguments.config_for(given)
  if config.model.get("scale", 1.0) < 1:
    config.data.min_crop_area = 0.49  # section 4: less aggressive scale augmentation for small networks
  if config.model.network in WITHOUT_BATCH_NORM:
    config.optimizer.learning_rate = 0.01  # from their papers; 0.5 diverges without batch norm
  if not (batch.isdecimal() and int(batch)):
    raise UserError(f"batch={batch} is not a positive number like {PAPER_BATCH}")
  _scale_to_batch(config, int(batch))
  return config


def _scale_to_batch(config, batch: int) -> None:
  """Keeps the number of epochs at another batch: the linear scaling rule, with warm-up if the batch is larger."""
  ratio = batch / PAPER_BATCH
  config.batch_size = batch
  config.optimizer.learning_rate *= ratio
  config.num_train_steps = round(config.num_train_steps / ratio)
  config.eval_every_steps = max(round(config.eval_every_steps / ratio), 1)
  if ratio > 1:
    config.optimizer.warmup_steps = round(WARMUP_EPOCHS * TRAINING_IMAGES / batch)
