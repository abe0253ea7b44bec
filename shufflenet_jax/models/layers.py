"""Layers that several networks share.

Images are NHWC, kernels HWIO, parameters float32; modules compute in their `dtype`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Kernel(nn.Module):
  """Declares the parameter `kernel`, float32, He-normal, of a convolution that a formulation computes."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self) -> jax.Array:
    return self.param("kernel", nn.initializers.he_normal(), self.shape)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
  """Convolution with symmetric padding, as in the authors' release: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), f).

  With stride 2, "SAME" would differ: it pads an even-sized image only below and to the right.

  Args:
    x: (n, h, w, c).
    kernel: HWIO (k, k, c / groups, f) with k odd; any dtype, is cast to x's.
    stride: s.
    groups: must divide c and f.
  """
  pad = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride, stride),
    padding=((pad, pad), (pad, pad)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
  """ReLU whose gradient needs only the output, which is stored anyway; `jax.nn.relu` stores a mask as well."""
  return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
  y = relu(*primals)
  return y, jax.lax.select(y > 0, *tangents, jnp.zeros_like(y))


def stages_between(stages: Sequence[str], after: str | None, until: str) -> Sequence[str]:
  """The stages of a network that follow `after` (None: from the first) up to and including `until`.

  Raises:
    ValueError: an unknown stage, or none in between.
  """
  for stage in filter(None, (after, until)):
    if stage not in stages:
      raise ValueError(f"{stage!r} is not a stage of this network: {', '.join(stages)}")
  between = stages[0 if after is None else stages.index(after) + 1 : stages.index(until) + 1]
  if not between:
    raise ValueError(f"no stage follows {after!r} up to {until!r}")
  return between


class SqueezeExcite(nn.Module):
  """Squeeze-and-excitation (arXiv 1709.01507; section 4.3 of the ShuffleNet paper): (n, h, w, c) -> the same.

  Scales each channel by a gate that a network with one hidden layer computes from the means of all channels.

  Attributes:
    reduction: the hidden layer has c / reduction channels.
    dtype: compute dtype.
  """

  reduction: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = x.shape[-1]
    gate = x.mean(axis=(1, 2))  # (n, h, w, c) -> (n, c)
    gate = nn.relu(nn.Dense(max(c // self.reduction, 1), dtype=self.dtype, name="reduce")(gate))
    gate = nn.sigmoid(nn.Dense(c, dtype=self.dtype, name="expand")(gate))
    return x * gate[:, None, None, :]  # (n, c) -> (n, 1, 1, c)
