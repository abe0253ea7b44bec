"""From a network to plain layers: traces its computation in JAX, and reads the trace operation by operation.

No network is known here by its name. Whatever depends on parameters alone is computed at once; what remains are
operations on pictures, each of which has a function in `_OPERATIONS` or, for AlexNet's normalisation, in `_WHOLE`. Any
other operation is refused.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from shufflenet_jax.deployment import algebra
from shufflenet_jax.deployment.layers import (
  Add,
  AveragePool,
  Concat,
  Dense,
  Flatten,
  Float,
  Gate,
  Input,
  Layer,
  LocalResponseNorm,
  MaxPool,
  Mean,
  Sigmoid,
)
from shufflenet_jax.errors import UserError
from shufflenet_jax.models.baselines import alexnet


@dataclasses.dataclass(frozen=True)
class _Grouped:
  """Half of a channel shuffle: a layer (h, w, c) as (h, w, g, c/g), or as (h, w, c/g, g) once it is `swapped`."""

  layer: Layer
  groups: int
  swapped: bool = False


@dataclasses.dataclass(frozen=True)
class _Spread:
  """A layer (c,) as (1, 1, c), about to be multiplied with (h, w, c)."""

  layer: Layer


_Value = np.ndarray | Layer | _Grouped | _Spread


class _Unknown(Exception):
  """This operation, with these arguments, is none that plain layers can express."""


def layers(function: Callable, height: int, width: int) -> Layer:
  """The output of a function of pictures as a graph of plain layers.

  Args:
    function: uint8 (n, height, width, 3) -> float (n, c), with its parameters bound, for inference in float32.
    height, width: of the pictures.

  Raises:
    UserError: it uses an operation that is not known here.
  """
  closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((1, height, width, 3), jnp.uint8))
  (output,) = _read(closed.jaxpr, closed.consts, [Input((), (height, width, 3))])
  if not isinstance(output, Layer):
    raise UserError("the network cannot be exported: its output is a constant")
  return output


def _read(jaxpr, constants: Sequence, arguments: Sequence[_Value]) -> list[_Value]:
  """The outputs of a jaxpr as arrays and layers."""
  values = dict(zip(jaxpr.constvars, map(np.asarray, constants))) | dict(zip(jaxpr.invars, arguments))

  def value(variable) -> _Value:
    return np.asarray(variable.val) if isinstance(variable, jax.extend.core.Literal) else values[variable]

  for eqn in jaxpr.eqns:
    try:
      outputs = _read_equation(eqn, [value(v) for v in eqn.invars])
    except _Unknown:
      where = str(eqn.source_info.name_stack) or "outside any module"
      raise UserError(
        f"the network cannot be exported: {where} uses the operation {eqn.primitive.name} in a way that is not known"
      ) from None
    values.update(zip(eqn.outvars, outputs))
  return [value(v) for v in jaxpr.outvars]


def _read_equation(eqn, arguments: list[_Value]) -> list[_Value]:
  name = eqn.primitive.name
  inner = next(iter(jax.extend.core.jaxprs_in_params(eqn.params)), None)
  if name in _CALLS and inner is not None:
    if (whole := _WHOLE.get(eqn.params.get("name"))) and isinstance(arguments[0], Layer):
      return [whole(arguments[0])]
    closed = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return _read(inner, getattr(closed, "consts", ()), arguments)
  if all(isinstance(argument, np.ndarray) for argument in arguments):
    return _compute(eqn, arguments)
  if name not in _OPERATIONS:
    raise _Unknown
  return [_OPERATIONS[name](eqn, *arguments)]


def _compute(eqn, arguments: list[np.ndarray]) -> list[np.ndarray]:
  """The outputs of an operation on parameters alone."""
  if eqn.primitive.name == "broadcast_in_dim":  # a view: a copy of a bias for each position of a map would be large
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    sides = [arguments[0].shape[dims.index(d)] if d in dims else 1 for d in range(len(shape))]
    return [np.broadcast_to(arguments[0].reshape(sides), shape)]  # (c,) -> (1, 1, 1, c) -> (n, h, w, c)
  outputs = eqn.primitive.bind(*arguments, **eqn.params)
  return [np.asarray(output) for output in (outputs if eqn.primitive.multiple_results else [outputs])]


def _per_channel(constant: np.ndarray) -> np.ndarray:
  """A constant that has one value for all, or one for each of the last axis: as a scalar or (c,)."""
  *others, _ = constant.shape or (1,)
  if any(side != 1 and stride != 0 for side, stride in zip(others, constant.strides)):
    raise _Unknown
  return constant[(0,) * len(others)] if constant.shape else constant


def _pair(x: _Value, y: _Value) -> tuple[Layer, np.ndarray]:
  """A layer and a constant, in whichever order they come."""
  if isinstance(y, Layer):
    x, y = y, x
  if not isinstance(x, Layer) or not isinstance(y, np.ndarray):
    raise _Unknown
  return x, _per_channel(y)


def _add(eqn, x: _Value, y: _Value) -> Layer:
  if isinstance(x, Layer) and isinstance(y, Layer) and x.shape == y.shape:
    return Add((x, y), x.shape)
  layer, constant = _pair(x, y)
  return algebra.affine(layer, 1, constant)


def _sub(eqn, x: _Value, y: _Value) -> Layer:
  layer, constant = _pair(x, y)
  return algebra.affine(layer, 1, -constant) if layer is x else algebra.affine(layer, -1, constant)


def _mul(eqn, x: _Value, y: _Value) -> Layer:
  if isinstance(x, _Spread):
    x, y = y, x
  if isinstance(x, Layer) and isinstance(y, _Spread):
    return Gate((x, y.layer), x.shape)
  layer, constant = _pair(x, y)
  return algebra.affine(layer, constant, 0)


def _div(eqn, x: _Value, y: _Value) -> Layer:
  layer, constant = _pair(x, y)
  if layer is not x:
    raise _Unknown
  return algebra.affine(layer, 1 / constant.astype(np.float64), 0)


def _max(eqn, x: _Value, y: _Value) -> Layer:
  layer, constant = _pair(x, y)
  if constant.any():
    raise _Unknown
  return algebra.relu(layer)


def _convert(eqn, x: _Value) -> Layer:
  if eqn.params["new_dtype"] != jnp.float32 or not isinstance(x, Layer):
    raise _Unknown
  return Float((x,), x.shape) if isinstance(x, Input) else x


def _conv(eqn, x: _Value, kernel: _Value) -> Layer:
  p = eqn.params
  nhwc, hwio = (0, 3, 1, 2), (3, 2, 0, 1)
  if (
    not isinstance(x, Layer)
    or not isinstance(kernel, np.ndarray)
    or tuple(p["dimension_numbers"]) != (nhwc, hwio, nhwc)
    or {*p["lhs_dilation"], *p["rhs_dilation"], p["batch_group_count"]} != {1}
  ):
    raise _Unknown
  return algebra.conv(x, kernel, p["window_strides"], p["padding"], p["feature_group_count"])


def _dense(eqn, x: _Value, kernel: _Value) -> Layer:
  if eqn.params["dimension_numbers"] != (((1,), (0,)), ((), ())) or not isinstance(kernel, np.ndarray):
    raise _Unknown
  return Dense((x,), kernel.shape[1:], kernel, np.zeros(kernel.shape[1]))


def _pool(kind: type) -> Callable:
  def pool(eqn, x: _Value) -> Layer:
    p = eqn.params
    (_, *window, in_channels), (_, *stride, _), (_, *padding, _) = (
      p["window_dimensions"],
      p["window_strides"],
      p["padding"],
    )
    dilations = {*p["base_dilation"], *p["window_dilation"]}
    if not isinstance(x, Layer) or len(window) != 2 or in_channels != 1 or dilations != {1}:
      raise _Unknown
    pooled = kind((x,), eqn.outvars[0].aval.shape[1:], tuple(window), tuple(stride), tuple(padding))
    return pooled if kind is MaxPool else algebra.affine(pooled, window[0] * window[1], 0)  # the trace has the sum

  return pool


def _reduce_sum(eqn, x: _Value) -> Layer:
  if eqn.params["axes"] != (1, 2) or not isinstance(x, Layer):
    raise _Unknown
  h, w, c = x.shape
  return algebra.affine(Mean((x,), (c,)), h * w, 0)  # the trace has the sum, and divides it then


def _reshape(eqn, x: _Value) -> _Value:
  shape = eqn.outvars[0].aval.shape[1:]
  if isinstance(x, Layer):
    if shape == x.shape:
      return x
    if len(x.shape) == 3 and shape == (np.prod(x.shape),):
      return Flatten((x,), shape)
    if shape == (1, 1, *x.shape):
      return _Spread(x)
    if len(x.shape) == 3 and len(shape) == 4 and shape[:2] == x.shape[:2] and shape[2] * shape[3] == x.shape[2]:
      return _Grouped(x, shape[2])
  if isinstance(x, _Grouped) and x.swapped and shape == x.layer.shape:
    return algebra.shuffle(x.layer, x.groups)
  raise _Unknown


def _transpose(eqn, x: _Value) -> _Value:
  if isinstance(x, _Grouped) and not x.swapped and eqn.params["permutation"] == (0, 1, 2, 4, 3):
    return dataclasses.replace(x, swapped=True)
  raise _Unknown


def _concatenate(eqn, *inputs: _Value) -> Layer:
  shape = eqn.outvars[0].aval.shape[1:]
  if eqn.params["dimension"] != len(shape) or not all(isinstance(x, Layer) for x in inputs):
    raise _Unknown
  return Concat(inputs, shape)


def _sigmoid(eqn, x: _Value) -> Layer:
  return Sigmoid((x,), x.shape)


def _broadcast(eqn, x: _Value) -> _Value:
  if isinstance(x, _Spread):
    return x
  return _reshape(eqn, x)  # (c,) -> (1, 1, c); refused if it copies


def _local_response_norm(x: Layer) -> Layer:
  return LocalResponseNorm(
    (x,), x.shape, radius=alexnet.RADIUS, offset=alexnet.OFFSET, scale=alexnet.SCALE, power=alexnet.POWER
  )


_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")
# Functions under `jax.jit` that are one layer, by name.
_WHOLE = {alexnet.local_response_norm.__name__: _local_response_norm}
_OPERATIONS = {
  "add": _add,
  "sub": _sub,
  "mul": _mul,
  "div": _div,
  "max": _max,
  "logistic": _sigmoid,
  "convert_element_type": _convert,
  "conv_general_dilated": _conv,
  "dot_general": _dense,
  "reduce_window_max": _pool(MaxPool),
  "reduce_window_sum": _pool(AveragePool),
  "reduce_sum": _reduce_sum,
  "reshape": _reshape,
  "broadcast_in_dim": _broadcast,
  "transpose": _transpose,
  "concatenate": _concatenate,
}
