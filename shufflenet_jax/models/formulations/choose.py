"""Which formulation computes a network's layers, by the field `lowering` and the platform.

`lowering` is "auto" or the name of a formulation. Parameters are the same for all.
"""

import functools
from collections.abc import Callable

import jax

from shufflenet_jax.models.batch_norm import Moments, Norm
from shufflenet_jax.models.formulations import dense, planes, reference
from shufflenet_jax.models.formulations.interface import PerLayer

# The value of `lowering` -> a module that has the functions below.
FORMULATIONS = {"reference": reference, "dense": dense, "planes": planes}
LOWERINGS = ("auto", *FORMULATIONS)

# What "auto" means on each platform; any other platform gets the reference, whose multiply-adds `complexity` counts.
# On TPUs, "dense" takes 0.4 times the reference's cycles by the compiler's estimate. On a CPU, "planes" trains more
# than 12 times as fast as the reference (1x g=3), and other networks two to nine times (benchmarks/RESULTS.md). Nothing
# has been measured on GPUs: "dense" is chosen because its shuffle, which is applied to kernels, costs little on any
# device.
FASTEST = {"tpu": "dense", "cpu": "planes", "cuda": "dense", "rocm": "dense"}


def unit(lowering: str, kernels: PerLayer, norms: PerLayer, x: jax.Array, **settings) -> tuple[jax.Array, PerLayer]:
  """`reference.unit` in the formulation that `lowering` names.

  Raises:
    ValueError: an unknown lowering.
  """
  return _dispatch(lowering, lambda formulation: functools.partial(formulation.unit, **settings), kernels, norms, x)


def stem(lowering: str, kernel: jax.Array, norm: Norm, images: jax.Array) -> tuple[jax.Array, Moments | None]:
  """`reference.stem` in the formulation that `lowering` names.

  Raises:
    ValueError: an unknown lowering.
  """
  return _dispatch(lowering, lambda formulation: formulation.stem, kernel, norm, images)


def conv_norm_relu(
  lowering: str, kernel: jax.Array, norm: Norm, x: jax.Array, **settings
) -> tuple[jax.Array, Moments | None]:
  """`reference.conv_norm_relu` in the formulation that `lowering` names.

  Raises:
    ValueError: an unknown lowering.
  """
  function_of = lambda formulation: functools.partial(formulation.conv_norm_relu, **settings)  # noqa: E731
  return _dispatch(lowering, function_of, kernel, norm, x)


def add_relu(lowering: str, x: jax.Array, y: jax.Array) -> jax.Array:
  """`reference.add_relu` in the formulation that `lowering` names; raises as `unit`."""
  return _dispatch(lowering, lambda formulation: formulation.add_relu, x, y)


def max_pool3x3(lowering: str, x: jax.Array) -> jax.Array:
  """`reference.max_pool3x3` in the formulation that `lowering` names; raises as `unit`."""
  return _dispatch(lowering, lambda formulation: formulation.max_pool3x3, x)


def _dispatch(lowering: str, function_of: Callable, *operands):
  """Calls `function_of(formulation)(*operands)` for the formulation that `lowering` names.

  Raises:
    ValueError: an unknown lowering.
  """
  if lowering not in LOWERINGS:
    raise ValueError(f"lowering={lowering!r} is not one of {', '.join(LOWERINGS)}")
  if lowering != "auto":
    return function_of(FORMULATIONS[lowering])(*operands)
  of_platform = {platform: function_of(FORMULATIONS[name]) for platform, name in FASTEST.items()}
  return by_platform(function_of(reference), of_platform, *operands)


def by_platform(default: Callable, of_platform: dict[str, Callable], *operands):
  """Calls the function for the platform that the program is compiled for.

  Under a mesh of devices, as in a `shard_map`, that is the mesh's platform, and only its function is traced. Otherwise
  the platform is known only when the traced function is lowered, so that every function is traced, which takes two to
  five times as long.

  Args:
    default: for platforms without a function of their own; its multiply-adds are those that are counted.
    of_platform: "tpu", "cpu", "cuda" or "rocm" -> a function of the same operands and results.
    *operands: arrays or trees of them.
  """
  if device := jax.sharding.get_abstract_mesh().abstract_device:
    platform = "cuda" if device.platform == "gpu" else device.platform
    return of_platform.get(platform, default)(*operands)
  return jax.lax.platform_dependent(*operands, default=default, **of_platform)
