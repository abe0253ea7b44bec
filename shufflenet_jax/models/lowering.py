"""How a network's convolutions, pools and sums are computed: one function each, several formulations of the same thing.

`lowering` names the formulation; parameters are the same for all:

- "reference": convolutions with `feature_group_count`, the shuffle on the activations: as the paper reads.
- "dense": the 1x1 group convolution as an ordinary one with a block-diagonal kernel. Batch norm, ReLU and the
  depthwise convolution act on each channel alone, so the shuffle may be applied to the kernel's output channels, a
  few kilobytes, and vanishes from the activations. A 128x128 matrix unit does the zeros for nothing.
- "split": one matrix product for each group, stacked in shuffled order; 3x3 windows as nine shifted slices
  (`models/taps.py`). Units hand each other their groups: what stands in one array between them is a concatenation that
  the next unit's split undoes, so XLA leaves both out.
  Gradients are written by hand (`jax.custom_vjp`): no forward-mode differentiation, also not under "auto".
- "auto": the fastest for the platform that is compiled for; `FASTEST` is the rule, benchmarks/RESULTS.md the evidence.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from shufflenet_jax.models import taps
from shufflenet_jax.models.layers import relu

LOWERINGS = ("auto", "reference", "dense", "split")
# Platform compiled for -> lowering; any other gets the reference, whose products `complexity` counts. TPU and CPU are
# measured; on a GPU the shuffle is as free, but its speed has not been measured.
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
  x: jax.Array,
  kernel: jax.Array,
  groups: int,
  shuffle_groups: int = 1,
  lowering: str = "auto",
  bias: jax.Array | None = None,
) -> jax.Array:
  """1x1 group convolution, its output channels shuffled; then a bias, added in float32.

  Args:
    x: (n, h, w, c_in).
    kernel: HWIO (1, 1, c_in / groups, c_out), in any dtype; computed in x's.
    groups: must divide c_in and c_out.
    shuffle_groups: of the `channel_shuffle` that follows; 1 for none.
    lowering: one of `LOWERINGS`.
    bias: float32 (c_out,), or None.

  Returns:
    (n, h, w, c_out), x's dtype.

  Raises:
    ValueError: groups that do not divide the channels, or an unknown lowering.
  """
  if x.shape[-1] % groups or kernel.shape[-1] % groups:
    raise ValueError(f"{groups} groups do not divide {x.shape[-1]} input and {kernel.shape[-1]} output channels")
  kernel = kernel.astype(x.dtype)
  arrays = (x, kernel) if bias is None else (x, kernel, bias)
  return dispatch(_GROUP_CONV1X1, lowering, *arrays, groups=groups, shuffle_groups=shuffle_groups)


def depthwise_conv3x3(x: jax.Array, kernel: jax.Array, stride: int, lowering: str = "auto") -> jax.Array:
  """3x3 depthwise convolution, padding 1: (n, h, w, c) -> (n, ceil(h/s), ceil(w/s), c), x's dtype.

  Args:
    x: (n, h, w, c).
    kernel: HWIO (3, 3, 1, c), in any dtype; computed in x's.
    stride: s, 1 or 2.
    lowering: one of `LOWERINGS`.

  Raises:
    ValueError: another stride, or an unknown lowering.
  """
  _check_stride(stride)
  return dispatch(_DEPTHWISE, lowering, x, kernel.astype(x.dtype), stride=stride)


def stem_conv3x3(x: jax.Array, kernel: jax.Array, lowering: str = "auto") -> jax.Array:
  """3x3 convolution of stride 2, padding 1: (n, h, w, c) and HWIO (3, 3, c, f) -> (n, ceil(h/2), ceil(w/2), f).

  Raises:
    ValueError: a kernel of another shape, or an unknown lowering.
  """
  if kernel.shape[:-1] != (3, 3, x.shape[-1]):
    raise ValueError(f"a kernel of shape {kernel.shape} is not (3, 3, {x.shape[-1]}, f)")
  return dispatch(_STEM_CONV, lowering, x, kernel.astype(x.dtype))


def affine_relu_depthwise3x3(
  x: jax.Array, a: jax.Array, b: jax.Array, kernel: jax.Array, stride: int, lowering: str = "auto"
) -> jax.Array:
  """`depthwise_conv3x3` of relu(a * x + b), the middle of a unit with its norm as an affine map.

  Args:
    x: (n, h, w, c).
    a, b: float32 (c,); the map is computed in float32 and rounded to x's dtype.
    kernel, stride, lowering, errors: see `depthwise_conv3x3`.
  """
  _check_stride(stride)
  return dispatch(_AFFINE_RELU_DEPTHWISE, lowering, x, a, b, kernel.astype(x.dtype), stride=stride)


def avg_pool3x3(x: jax.Array, lowering: str = "auto") -> jax.Array:
  """3x3 average pool of stride 2, padding 1 (zeros, counted in): (n, h, w, c) -> (n, ceil(h/2), ceil(w/2), c)."""
  return dispatch(_AVG_POOL, lowering, x)


def max_pool3x3(x: jax.Array, lowering: str = "auto") -> jax.Array:
  """3x3 max pool of stride 2, padding 1: (n, h, w, c) -> (n, ceil(h/2), ceil(w/2), c)."""
  return dispatch(_MAX_POOL, lowering, x)


def fork(x: jax.Array, groups: int, lowering: str = "auto") -> tuple[jax.Array, jax.Array]:
  """(x, x): for a unit's branch and its shortcut, whose gradients "split" adds group by group."""
  return dispatch(_FORK, lowering, x, groups=groups)


def relu_groups(x: jax.Array, groups: int, lowering: str = "auto") -> jax.Array:
  """ReLU at the end of a unit: (n, h, w, c) -> the same."""
  return dispatch(_RELU, lowering, x, groups=groups)


def add_relu(x: jax.Array, y: jax.Array, groups: int, lowering: str = "auto") -> jax.Array:
  """ReLU of the sum at the end of a unit: twice (n, h, w, c) -> the same."""
  return dispatch(_ADD_RELU, lowering, x, y, groups=groups)


def dispatch(formulations, lowering: str, *arrays, **settings):
  """`formulations[lowering](*arrays, **settings)`; "auto" picks by `FASTEST` where the platform is known.

  That is while tracing under a mesh of devices, as inside a `shard_map`: theirs, also where the result is exported for
  another platform. Elsewhere it is when the traced function is lowered, so that all are traced: twice as long.

  Args:
    formulations: name -> function, for each of `LOWERINGS` but "auto".
    lowering: one of `LOWERINGS`.

  Raises:
    ValueError: an unknown lowering.
  """
  formulations = {name: functools.partial(f, **settings) for name, f in formulations.items()}
  if lowering not in LOWERINGS:
    raise ValueError(f"lowering={lowering!r} is not one of {', '.join(LOWERINGS)}")
  if lowering != "auto":
    return formulations[lowering](*arrays)
  if device := jax.sharding.get_abstract_mesh().abstract_device:
    platform = "cuda" if device.platform == "gpu" else device.platform
    return formulations[FASTEST.get(platform, "reference")](*arrays)
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


def _check_stride(stride):
  if stride not in (1, 2):
    raise ValueError(f"stride={stride!r} is neither 1 nor 2, the strides of the paper's units")


def _add(y, bias):
  return y if bias is None else (y.astype(jnp.float32) + bias).astype(y.dtype)


def _group_conv1x1_reference(x, kernel, bias=None, *, groups, shuffle_groups):
  return _add(channel_shuffle(conv(x, kernel, groups=groups), shuffle_groups), bias)


def _group_conv1x1_dense(x, kernel, bias=None, *, groups, shuffle_groups):
  _, _, i, o = kernel.shape
  blocks = kernel.reshape(1, i, groups, o // groups)  # (1, 1, c_in/g, c_out) -> (1, c_in/g, g, c_out/g)
  own = jnp.eye(groups, dtype=kernel.dtype)[:, None, :, None]  # (g, g) -> (g, 1, g, 1)
  dense = (blocks * own).reshape(1, 1, groups * i, o)  # (g, c_in/g, g, c_out/g) -> (1, 1, c_in, c_out)
  return _add(conv(x, channel_shuffle(dense, shuffle_groups)), bias)


def _group_conv1x1_split(x, kernel, bias=None, *, groups, shuffle_groups):
  # In two dimensions: a product's gradient for the kernel is then a product too, without a transposed copy of x.
  kernel, shape = kernel[0, 0], (*x.shape[:-1], -1)
  if groups == 1:
    y = _pixels(x) @ channel_shuffle(kernel, shuffle_groups)
    return _add(y.reshape(shape), bias)  # (n*h*w, c_out) -> (n, h, w, c_out)
  y = [_pixels(xi) @ ki for xi, ki in zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1))]
  if shuffle_groups == groups:
    # Written once: XLA would stack them anew for some readers.  (n*h*w, c_out/g, g) -> (n, h, w, c_out)
    return _add(taps.apart(lambda *y: jnp.stack(y, -1).reshape(shape[:-1] + kernel.shape[-1:]), *y), bias)
  y = [yi.reshape(shape) for yi in y]  # (n*h*w, c_out/g) -> (n, h, w, c_out/g)
  if shuffle_groups == 1 and bias is not None:  # ahead of the concatenation, which a split by the reader undoes
    y, bias = [_add(yi, bi) for yi, bi in zip(y, jnp.split(bias, groups))], None
  return _add(channel_shuffle(jnp.concatenate(y, -1), shuffle_groups), bias)


def _pixels(x):
  return x.reshape(-1, x.shape[-1])  # (n, h, w, c) -> (n*h*w, c)


def _relu_split(x, groups):
  # By group, and each written: the next unit reads groups, and XLA sees a split undo a concatenation.
  return jnp.concatenate(taps.apart(jax.lax.optimization_barrier, [relu(xi) for xi in jnp.split(x, groups, -1)]), -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _add_relu_split(x, y, groups):
  sums = [relu(xi + yi) for xi, yi in zip(jnp.split(x, groups, -1), jnp.split(y, groups, -1))]
  return jnp.concatenate(taps.apart(jax.lax.optimization_barrier, sums), -1)


def _add_relu_split_forward(x, y, groups):
  out = _add_relu_split(x, y, groups)
  return out, out


def _add_relu_split_backward(groups, out, gradient):
  # From what was written: from the sums themselves, XLA would add once more.
  parts = zip(jnp.split(out, groups, -1), jnp.split(gradient, groups, -1))
  gradient = jnp.concatenate([jax.lax.select(o > 0, g, jnp.zeros_like(g)) for o, g in parts], -1)
  return gradient, gradient


_add_relu_split.defvjp(_add_relu_split_forward, _add_relu_split_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _fork_split(x, groups):
  return x, x


def _fork_split_backward(groups, _, gradients):
  parts = zip(*(jnp.split(gradient, groups, -1) for gradient in gradients))
  return (jnp.concatenate([a + b for a, b in parts], -1),)


_fork_split.defvjp(lambda x, groups: ((x, x), None), _fork_split_backward)


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


def _affine_relu_depthwise(depthwise, x, a, b, kernel, stride):
  return depthwise(relu((x.astype(jnp.float32) * a + b).astype(x.dtype)), kernel, stride)


_WINDOW = {"window_shape": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}


_GROUP_CONV1X1 = {
  "reference": _group_conv1x1_reference,
  "dense": _group_conv1x1_dense,
  "split": _group_conv1x1_split,
}
_conv_stride2 = functools.partial(conv, stride=2)
_STEM_CONV = {"reference": _conv_stride2, "dense": _conv_stride2, "split": taps.conv_stride2}
_DEPTHWISE = {"reference": _depthwise_conv, "dense": _depthwise_dense, "split": taps.depthwise}
_AFFINE_RELU_DEPTHWISE = {
  "reference": functools.partial(_affine_relu_depthwise, _depthwise_conv),
  "dense": functools.partial(_affine_relu_depthwise, _depthwise_dense),
  "split": taps.affine_relu_depthwise,
}
_avg_pool, _max_pool = functools.partial(nn.avg_pool, **_WINDOW), functools.partial(nn.max_pool, **_WINDOW)
_AVG_POOL = {"reference": _avg_pool, "dense": _avg_pool, "split": taps.avg_pool}
_MAX_POOL = {"reference": _max_pool, "dense": _max_pool, "split": taps.max_pool}
_FORK = {"reference": lambda x, groups: (x, x), "split": lambda x, groups: _fork_split(x, groups)}
_RELU = {"reference": lambda x, groups: relu(x), "split": _relu_split}
_ADD_RELU = {"reference": lambda x, y, groups: relu(x + y), "split": lambda x, y, groups: _add_relu_split(x, y, groups)}
for plain in (_FORK, _RELU, _ADD_RELU):
  plain["dense"] = plain["reference"]
