"""From a config's `model` section to a Flax module. Its field `network` names the module."""

import bisect
import contextlib
import inspect
import typing

import jax
import jax.numpy as jnp

from shufflenet_jax.errors import UserError
from shufflenet_jax.models.baselines.alexnet import AlexNet
from shufflenet_jax.models.baselines.googlenet import GoogLeNet
from shufflenet_jax.models.baselines.mobilenet import MobileNetV1
from shufflenet_jax.models.baselines.other_units import UNITS, constructor_for_budget
from shufflenet_jax.models.baselines.squeezenet import SqueezeNet
from shufflenet_jax.models.baselines.vgg import VGG16
from shufflenet_jax.models.formulations.choose import LOWERINGS
from shufflenet_jax.models.shufflenet import SHUFFLES, ShuffleNetV1, stage_channels

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _check_shufflenet_v1(fields) -> None:
  try:
    stage_channels(fields["groups"], fields["scale"])
  except ValueError as error:
    raise UserError(f"config.model: {error}") from None
  if fields["shuffle"] not in SHUFFLES:
    raise UserError(f"config.model.shuffle={fields['shuffle']!r} is not one of {', '.join(SHUFFLES)}")
  repeats = tuple(fields["repeats"])
  if len(repeats) != 3 or min(repeats) < 1:
    raise UserError(f"config.model.repeats={repeats} must be three positive numbers, for instance (4, 8, 4)")
  if fields["stem"] < 0 or fields["stem"] % fields["groups"]:
    raise UserError(
      f"config.model.stem={fields['stem']} must be a multiple of groups={fields['groups']}, or 0 for the usual one"
    )


def _check_mobilenet_v1(fields) -> None:
  if not fields["scale"] >= 1 / 32:
    raise UserError(f"config.model.scale={fields['scale']} must be positive, for instance 1.0, 0.75, 0.5 or 0.25")


def _unit_of_table4(unit: str):
  def construct(mflops: float = 38.0, lowering: str = "auto", **fields):  # Table 4 has 140, 38 and 13
    return constructor_for_budget(unit, float(mflops))(lowering=lowering, **fields)

  return construct


# A config's `network` -> its constructor, whose arguments with defaults are the network's fields in a config.
NETWORKS = {
  "shufflenet_v1": ShuffleNetV1,
  "mobilenet_v1": MobileNetV1,
  "vgg16": VGG16,
  "googlenet": GoogLeNet,
  "alexnet": AlexNet,
  "squeezenet": SqueezeNet,
  **{unit: _unit_of_table4(unit) for unit in UNITS},
}

_CHECKS = {"shufflenet_v1": _check_shufflenet_v1, "mobilenet_v1": _check_mobilenet_v1}
WITHOUT_BATCH_NORM = ("vgg16", "alexnet", "squeezenet")  # these need a lower learning rate than the others
BACKBONES = ("shufflenet_v1", "mobilenet_v1")  # networks whose last stage can be computed on crops
# Arguments of constructors that are not a network's own fields: every network has the first two, Flax adds the next
# two, and no config sets the others.
_NOT_OWN = {"num_classes", "dtype", "name", "parent", "norm_momentum", "norm_epsilon"}


def own_fields(network: str) -> dict[str, typing.Any]:
  """The fields that a network adds to a config's `model` section, with their defaults."""
  parameters = inspect.signature(NETWORKS[network]).parameters.values()
  return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in _NOT_OWN}


def network(fields: typing.Mapping[str, typing.Any]):
  """The Flax module that a config's `model` section describes: images (n, h, w, 3) -> logits (n, num_classes).

  The network's own fields may be absent; they then have their defaults.

  Raises:
    UserError: a value that the network does not accept.
  """
  fields = dict(fields)
  name = fields.pop("network")
  if name not in NETWORKS:
    raise UserError(f"config.model.network={name!r} is not one of {', '.join(NETWORKS)}")
  if fields["dtype"] not in DTYPES:
    raise UserError(f"config.model.dtype={fields['dtype']!r} is not one of {', '.join(DTYPES)}")
  if fields["num_classes"] < 1:
    raise UserError(f"config.model.num_classes={fields['num_classes']} must be 1 or more")
  if unknown := fields.keys() - own_fields(name).keys() - {"num_classes", "dtype"}:
    has = ", ".join(own_fields(name)) or "none of its own"
    raise UserError(
      f"config.model.{min(unknown)} is not a field of network {name}, which has {has};"
      f" a config for it is, for instance, --config=configs/imagenet.py:network={name}"
    )
  if fields.get("lowering", "auto") not in LOWERINGS:
    raise UserError(f"config.model.lowering={fields['lowering']!r} is not one of {', '.join(LOWERINGS)}")
  fields = own_fields(name) | fields
  if name in _CHECKS:
    _CHECKS[name](fields)
  fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
  return NETWORKS[name](**fields | {"dtype": DTYPES[fields["dtype"]]})


def variable_shapes(fields: typing.Mapping[str, typing.Any], image_size: int) -> dict:
  """The variables of a config's `model` section as `jax.ShapeDtypeStruct`s, for square RGB images.

  Raises:
    UserError: a value that the network does not accept, or values that do not fit together.
  """
  with _value_errors_as_user_errors():
    return _variable_shapes(network(fields), image_size)


def count_for_images(model, config, count):
  """The multiply-adds of a config's network for one image; checks that the network accepts images of the config's size.

  Args:
    model: the Flax module.
    config: the whole config; error messages name its fields.
    count: (model, image_size) -> its multiply-adds, as `counting` counts them.

  Raises:
    UserError: values that do not fit together, or images that are too small.
  """
  size, largest = config.data.image_size, 224
  try:
    return count(model, size)
  except (ValueError, ZeroDivisionError):  # initialising an empty kernel divides by zero
    with _value_errors_as_user_errors():
      _variable_shapes(model, max(size, largest))
  smallest = bisect.bisect_left(range(largest), True, lo=size, key=lambda size: _fits(model, size))
  raise UserError(
    f"config.data.image_size={size} is too small for {config.model.network}; it needs {smallest} or more"
  ) from None


@contextlib.contextmanager
def _value_errors_as_user_errors():
  try:
    yield
  except ValueError as error:
    raise UserError(f"config.model: {error}") from None
  except ZeroDivisionError:  # initialising an empty kernel divides by zero
    raise UserError("config.model: a layer has no channels; choose a larger scale") from None


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
  """A network in a few words: `shufflenet_v1 scale=0.5 groups=3`."""
  shown = [f"{k}={fields[k]}" for k in ("scale", "groups", "mflops") if k in fields]
  return " ".join([fields["network"], *shown])
