"""How the unit's two convolutions are computed: one function each, several formulations of the same arithmetic.

`lowering` names the formulation; parameters are the same for all:

- "reference": convolutions with `feature_group_count`, the shuffle on the activations: as the paper reads.
- "dense": the 1x1 group convolution as an ordinary one with a block-diagonal kernel. Batch norm, ReLU and the
  depthwise convolution act on each channel alone, so the shuffle may be applied to the kernel's output channels, a
  few kilobytes, and vanishes from the activations. A 128x128 matrix unit does the zeros for nothing.
- "split": one matrix product for each group, stacked in shuffled order; the depthwise convolution as nine shifted
  multiply-adds.
- "auto": the fastest for the platform that is compiled for; `FASTEST` is the rule, benchmarks/RESULTS.md the evidence.
"""

import functools

import jax
import jax.numpy as jnp

LOWERINGS = ("auto", "reference", "dense", "split")
# Platform compiled for -> lowering; any other gets the reference. TPU and CPU are measured; on a GPU the shuffle is as
# free, but its speed has not been measured.
FASTEST = {"tpu": "dense", "cpu": "split", "cuda": "dense", "rocm": "dense"}
SHUFFLE_SCOPE = "channel_shuffle"  # what the shuffle's instructions are called in compiled programs
# Up to how many channels "dense" computes the depthwise convolution as an ordinary one with a diagonal kernel: by the
# TPU compiler's estimate a depthwise one takes as long as 128 channels would (benchmarks/RESULTS.md).
DIAGONAL_CHANNELS = 80


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
  """Mixes the channel groups (section 3.1, Fig. 1c): channel `i*n + j` goes to `j*groups + i`.

  Shuffling again with `channels // groups` groups is the inverse.

  Args:
    x: any dtype, shape (..., c); in the network (n, h, w, c).
    groups: how many groups the channels are in; must divide c.

  Returns:
    The same values, dtype and shape, channels reordered.

  Raises:
    ValueError: `groups` does not divide the channels.
  """
  *batch, c = x.shape
  if groups < 1 or c % groups:
    raise ValueError(f"channel_shuffle: {c} channels do not divide into {groups} groups")
  with jax.named_scope(SHUFFLE_SCOPE):
    x = x.reshape(*batch, groups, c // groups)  # (n, h, w, c) -> (n, h, w, g, c/g)
    x = jnp.swapaxes(x, -1, -2)  # (n, h, w, g, c/g) -> (n, h, w, c/g, g)
    return x.reshape(*batch, c)  # (n, h, w, c/g, g) -> (n, h, w, c)


def group_conv1x1(
  x: jax.Array, kernel: jax.Array, groups: int, shuffle_groups: int = 1, lowering: str = "auto"
) -> jax.Array:
  """1x1 group convolution, its output channels shuffled.

  Args:
    x: (n, h, w, c_in).
    kernel: HWIO (1, 1, c_in / groups, c_out), in any dtype; computed in x's.
    groups: must divide c_in and c_out.
    shuffle_groups: of the `channel_shuffle` that follows; 1 for none.
    lowering: one of `LOWERINGS`.

  Returns:
    (n, h, w, c_out), x's dtype.

  Raises:
    ValueError: groups that do not divide the channels, or an unknown lowering.
  """
  if x.shape[-1] % groups or kernel.shape[-1] % groups:
    raise ValueError(f"{groups} groups do not divide {x.shape[-1]} input and {kernel.shape[-1]} output channels")
  kernel = kernel.astype(x.dtype)
  return _dispatch(_GROUP_CONV1X1, lowering, x, kernel, groups=groups, shuffle_groups=shuffle_groups)


def depthwise_conv3x3(x: jax.Array, kernel: jax.Array, stride: int, lowering: str = "auto") -> jax.Array:
  """3x3 depthwise convolution, padding 1: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), c), x's dtype.

  Args:
    x: (n, h, w, c).
    kernel: HWIO (3, 3, 1, c), in any dtype; computed in x's.
    stride: s.
    lowering: one of `LOWERINGS`.

  Raises:
    ValueError: an unknown lowering.
  """
  return _dispatch(_DEPTHWISE, lowering, x, kernel.astype(x.dtype), stride=stride)


def _dispatch(formulations, lowering, *arrays, **settings):
  formulations = {name: functools.partial(f, **settings) for name, f in formulations.items()}
  if lowering not in LOWERINGS:
    raise ValueError(f"lowering={lowering!r} is not one of {', '.join(LOWERINGS)}")
  if lowering != "auto":
    return formulations[lowering](*arrays)
  by_platform = {platform: formulations[name] for platform, name in FASTEST.items()}
  return jax.lax.platform_dependent(*arrays, default=formulations["reference"], **by_platform)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
  """Convolution of NHWC images with an HWIO kernel; padding keeps ceil(side / stride) positions, symmetrically.

  With stride 2 that differs from "SAME", which pads only below and to the
  right of an even-sized image. Symmetric is what the authors' release does.
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


def _group_conv1x1_reference(x, kernel, groups, shuffle_groups):
  return channel_shuffle(conv(x, kernel, groups=groups), shuffle_groups)


def _group_conv1x1_dense(x, kernel, groups, shuffle_groups):
  _, _, i, o = kernel.shape
  blocks = kernel.reshape(1, i, groups, o // groups)  # (1, 1, c_in/g, c_out) -> (1, c_in/g, g, c_out/g)
  own = jnp.eye(groups, dtype=kernel.dtype)[:, None, :, None]  # (g, g) -> (g, 1, g, 1)
  dense = (blocks * own).reshape(1, 1, groups * i, o)  # (g, c_in/g, g, c_out/g) -> (1, 1, c_in, c_out)
  return conv(x, channel_shuffle(dense, shuffle_groups))


def _group_conv1x1_split(x, kernel, groups, shuffle_groups):
  if shuffle_groups not in (1, groups):
    return _group_conv1x1_dense(x, kernel, groups, shuffle_groups)
  parts = [xi @ ki for xi, ki in zip(jnp.split(x, groups, -1), jnp.split(kernel[0, 0], groups, -1))]
  if shuffle_groups == 1:
    return jnp.concatenate(parts, -1)
  return jnp.stack(parts, -1).reshape(*x.shape[:-1], -1)  # (n, h, w, c_out/g, g) -> (n, h, w, c_out)


def _depthwise_conv(x, kernel, stride):
  return conv(x, kernel, stride, groups=x.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _depthwise_dense(x, kernel, stride):
  """As an ordinary convolution whose kernel is diagonal, where the matrix unit would be less than half full."""
  c = x.shape[-1]
  if c > DIAGONAL_CHANNELS:
    return _depthwise_conv(x, kernel, stride)
  return conv(x, kernel * jnp.eye(c, dtype=kernel.dtype), stride)  # (3, 3, 1, c) -> (3, 3, c, c)


@_depthwise_dense.defjvp
def _depthwise_dense_jvp(stride, primals, tangents):
  (x, kernel), (dx, dkernel) = primals, tangents
  # The kernel's derivative stays depthwise, so that its transpose makes (3, 3, 1, c), not (3, 3, c, c).
  return _depthwise_dense(x, kernel, stride), _depthwise_dense(dx, kernel, stride) + _depthwise_conv(x, dkernel, stride)


def _depthwise_taps(x, kernel, stride):
  h, w = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  shifted = [(x[:, i : i + h : stride, j : j + w : stride], kernel[i, j, 0]) for i in range(3) for j in range(3)]
  return sum(pixels * tap for pixels, tap in shifted)


_GROUP_CONV1X1 = {
  "reference": _group_conv1x1_reference,
  "dense": _group_conv1x1_dense,
  "split": _group_conv1x1_split,
}
_DEPTHWISE = {"reference": _depthwise_conv, "dense": _depthwise_dense, "split": _depthwise_taps}
