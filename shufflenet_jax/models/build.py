"""From a config's `model` section to a Flax module: `network` names it, the other fields are its own."""

import bisect
import contextlib
import functools
import typing

import jax
import jax.numpy as jnp

from shufflenet_jax.config import settings
from shufflenet_jax.counting.multiply_adds import NetworkCount, count_network
from shufflenet_jax.errors import UserError
from shufflenet_jax.models.baselines.alexnet import AlexNet
from shufflenet_jax.models.baselines.googlenet import GoogLeNet
from shufflenet_jax.models.baselines.mobilenet import MobileNetV1
from shufflenet_jax.models.baselines.other_units import Table4Net, solve_width
from shufflenet_jax.models.baselines.squeezenet import SqueezeNet
from shufflenet_jax.models.baselines.vgg import VGG16
from shufflenet_jax.models.formulations.choose import LOWERINGS
from shufflenet_jax.models.shufflenet import SHUFFLES, STAGE2_CHANNELS, ShuffleNetV1, stage_channels

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _shufflenet_v1(**fields):
  try:
    stage_channels(fields["groups"], fields["scale"])
  except ValueError as error:
    raise UserError(f"config.model: {error}") from None
  if fields["shuffle"] not in SHUFFLES:
    raise UserError(f"config.model.shuffle={fields['shuffle']!r} is not one of {', '.join(SHUFFLES)}")
  if "lowering" not in fields:
    raise UserError("config.model has no field lowering: the checkpoint is of a version with another order of channels")
  if fields["lowering"] not in LOWERINGS:
    raise UserError(f"config.model.lowering={fields['lowering']!r} is not one of {', '.join(LOWERINGS)}")
  repeats = tuple(fields["repeats"])
  if len(repeats) != 3 or min(repeats) < 1:
    raise UserError(f"config.model.repeats={repeats} must be three positive numbers, as (4, 8, 4)")
  if fields["stem"] < 0 or fields["stem"] % fields["groups"]:
    raise UserError(
      f"config.model.stem={fields['stem']} must be a multiple of groups={fields['groups']}, or 0 for the usual one"
    )
  return ShuffleNetV1(**fields | {"repeats": repeats})


def _mobilenet_v1(**fields):
  if not fields["scale"] >= 1 / 32:
    raise UserError(f"config.model.scale={fields['scale']} must be positive, for instance 1.0, 0.75, 0.5 or 0.25")
  return MobileNetV1(**fields)


@functools.cache
def _table4(unit: str, mflops: float):
  """A constructor of Table 4's network with this unit at this complexity (conv-only, 224x224), width solved for.

  Raises:
    UserError: no width comes within 3 % of it.
  """
  if not 5 <= mflops <= 5000:
    raise UserError(f"config.model.mflops={mflops} must lie from 5 to 5000; the paper has 140, 38 and 13")
  stem = 24 if mflops >= 100 else 12  # as ShuffleNet's own

  def construct(stage4):
    if unit == "xception_like":  # a ShuffleNet of one group
      return functools.partial(ShuffleNetV1, 1, stage4 / (4 * STAGE2_CHANNELS[1]), stem=stem)
    return functools.partial(Table4Net, unit, stage4, stem)

  @functools.cache
  def multiply_adds(stage4):
    try:
      return count_network(construct(stage4)(), 224).without_classifier
    except ValueError:  # too narrow for its own stem
      return 0

  stage4 = solve_width(multiply_adds, mflops * 1e6)
  found = multiply_adds(stage4) / 1e6
  if abs(found / mflops - 1) > 0.03:
    nearest = f"the nearest of its widths has {found:.1f}" if found else "its narrowest width has more"
    raise UserError(f"config.model.mflops={mflops} cannot be met by {unit} within 3 %: {nearest}")
  return construct(stage4)


def _unit_of_table4(unit: str):
  return lambda mflops, **fields: _table4(unit, float(mflops))(**fields)


NETWORKS = {
  "shufflenet_v1": _shufflenet_v1,
  "mobilenet_v1": _mobilenet_v1,
  "vgg16": VGG16,
  "googlenet": GoogLeNet,
  "alexnet": AlexNet,
  "squeezenet": SqueezeNet,
  **{unit: _unit_of_table4(unit) for unit in ("vgg_like", "resnet", "xception_like", "resnext")},
}


def network(fields: typing.Mapping[str, typing.Any]):
  """The Flax module that a config's `model` section describes: images (n, h, w, 3) -> logits (n, num_classes).

  Raises:
    UserError: a value that no network has.
  """
  fields = dict(fields)
  name = fields.pop("network")
  if name not in NETWORKS:
    raise UserError(f"config.model.network={name!r} is not one of {', '.join(NETWORKS)}")
  if fields["dtype"] not in DTYPES:
    raise UserError(f"config.model.dtype={fields['dtype']!r} is not one of {', '.join(DTYPES)}")
  if fields["num_classes"] < 1:
    raise UserError(f"config.model.num_classes={fields['num_classes']} must be 1 or more")
  return NETWORKS[name](**fields | {"dtype": DTYPES[fields["dtype"]]})


def variable_shapes(fields: typing.Mapping[str, typing.Any], image_size: int) -> dict:
  """The variables of a config's `model` section as `jax.ShapeDtypeStruct`s, for square RGB images.

  Raises:
    UserError: a value that no network has, or values that do not go together.
  """
  with _values_that_fit():
    return _variable_shapes(network(fields), image_size)


def network_for_images(config) -> tuple[typing.Any, NetworkCount]:
  """A whole config's network, seen to take its images, and its count for one of them.

  Raises:
    UserError: a value that no network has, values that do not go together, or images too small for the network.
  """
  size, largest = config.data.image_size, 224
  settings.check_image_size(config)
  model = network(config.model)
  try:
    return model, count_network(model, size)
  except (ValueError, ZeroDivisionError):  # of an empty kernel
    with _values_that_fit():
      _variable_shapes(model, max(size, largest))
  smallest = bisect.bisect_left(range(largest), True, lo=size, key=lambda size: _fits(model, size))
  raise UserError(
    f"config.data.image_size={size} is too small for {config.model.network}; {smallest} or more will do"
  ) from None


@contextlib.contextmanager
def _values_that_fit():
  try:
    yield
  except ValueError as error:
    raise UserError(f"config.model: {error}") from None


def _fits(model, image_size: int) -> bool:
  try:
    _variable_shapes(model, image_size)
  except (ValueError, ZeroDivisionError):
    return False
  return True


def _variable_shapes(model, image_size: int) -> dict:
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  return jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), image)


def describe(fields: typing.Mapping[str, typing.Any]) -> str:
  """A title for pictures: `shufflenet_v1 scale=0.5 groups=3`."""
  shown = [f"{k}={fields[k]}" for k in ("scale", "groups", "mflops") if k in fields]
  return " ".join([fields["network"], *shown])
