"""A checkpoint's network, ready to export: with its parameters, in float32, in the paper's own formulation."""

import dataclasses
from collections.abc import Callable

import jax

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.checkpoints.checkpoint import Checkpoint
from shufflenet_jax.config import settings
from shufflenet_jax.deployment import trace
from shufflenet_jax.deployment.description import Description
from shufflenet_jax.deployment.layers import Layer
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build


@dataclasses.dataclass(frozen=True)
class Network:
  """A network to export.

  Attributes:
    function: uint8 pictures (n, h, w, 3) -> logits, float32 (n, classes).
    description: what the file will tell about it.
  """

  function: Callable[[jax.Array], jax.Array]
  description: Description

  def layers(self) -> Layer:
    """The network as plain layers; see `trace.layers`."""
    return trace.layers(self.function, self.description.height, self.description.width)


def of_checkpoint(source: Checkpoint) -> Network:
  """The network of a checkpoint.

  Raises:
    UserError: it is of another task than classification, a field of its config is out of range, or its files are
      damaged.
  """
  config = source.config
  if tasks.name_of(config) != "classification":
    raise UserError(f"{source.path} is of the task {tasks.name_of(config)}; only classification can be exported")
  settings.check(config, training=False)
  data, variables = config.data, source.restore_variables()
  forward = forward_of(config)

  def function(images):
    with jax.default_matmul_precision("highest"):  # TPUs and recent GPUs would round float32 factors to fewer bits
      return forward(variables, images)

  return Network(
    function=function,
    description=Description(
      network=build.describe(config.model),
      classes=tuple(source.class_names),
      height=data.image_size,
      width=data.image_size,
      resize=data.eval_resize,
      antialias=data.antialias,
      step=source.step,
      config=checkpoint.to_json(config),
    ),
  )


def forward_of(config):
  """A config's `tasks.forward.Forward` that computes in float32, in the formulation that is the paper line by line."""
  model = build.network({**config.model, "dtype": "float32"})
  if hasattr(model, "lowering"):
    model = model.clone(lowering="reference")
  return tasks.build(model, config).forward
