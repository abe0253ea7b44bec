"""Parameters and multiply-adds, counted from a network's arrays and its traced computation.

So these functions hold for any Flax module.
"""

import collections
import math
import typing

import jax
import jax.numpy as jnp
import tabulate


def count_parameters(params) -> int:
  """Number of values in a tree of arrays or `jax.ShapeDtypeStruct`s."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _multiply_adds(eqn) -> int:
  """Multiply-adds of one matrix product or convolution, 0 for anything else."""
  if eqn.primitive.name == "dot_general":
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[d] for d in contracted)
  if eqn.primitive.name == "conv_general_dilated":
    return _of_convolution(eqn)
  return 0


def _of_convolution(eqn) -> int:
  image, kernel, out = (v.aval.shape for v in (*eqn.invars, *eqn.outvars))
  of_image, of_kernel, of_out = eqn.params["dimension_numbers"]  # each (batch or out, channels or in, *sides)
  count = out[of_out[0]] * out[of_out[1]] * kernel[of_kernel[1]]
  for i in range(len(of_image) - 2):
    side, taps, positions = image[of_image[2 + i]], kernel[of_kernel[2 + i]], out[of_out[2 + i]]
    spread = eqn.params["lhs_dilation"][i]
    if spread == 1:
      count *= positions * taps
      continue
    # A transposed convolution: most taps meet the zeros between the image's values, which cost nothing.
    stride, reach = eqn.params["window_strides"][i], eqn.params["rhs_dilation"][i]
    first = -eqn.params["padding"][i][0]
    met = (first + p * stride + t * reach for p in range(positions) for t in range(taps))
    count *= sum(m % spread == 0 and 0 <= m < side * spread for m in met)
  return count


def _walk(jaxpr, scope: str, times: int, counts: collections.Counter):
  for eqn in jaxpr.eqns:
    here = "/".join(filter(None, (scope, str(eqn.source_info.name_stack))))
    if n := _multiply_adds(eqn):
      counts[here] += times * n
    inner_times = times * eqn.params["length"] if eqn.primitive.name == "scan" else times
    parameters = dict(eqn.params)
    if parameters.get("branches_platforms"):  # the same computation for each platform; the last is the plain one
      parameters["branches"] = parameters["branches"][-1:]
    for parameter in parameters.values():
      for inner in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
        inner = getattr(inner, "jaxpr", inner)  # a ClosedJaxpr holds a Jaxpr
        if hasattr(inner, "eqns"):
          _walk(inner, here, inner_times, counts)


def count_multiply_adds(function, *args) -> dict[str, int]:
  """Multiply-adds of the convolutions and matrix products in `function(*args)`, by name scope.

  Nothing is computed: the function is traced on shapes. Padding counts as
  input, as in the paper's tables, but not the zeros within and around the
  input of a transposed convolution; additions, norms and pools do not count. The
  body of a `lax.while_loop` counts once, both branches of a `lax.cond` count,
  of a `lax.platform_dependent` its default.

  Args:
    function: any function that JAX can trace.
    *args: trees of arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    Name scope (Flax module path) -> multiply-adds; their sum is the total.
  """
  counts = collections.Counter()
  _walk(jax.make_jaxpr(function)(*args).jaxpr, "", 1, counts)
  return dict(counts)


class NetworkCount(typing.NamedTuple):
  """What `count_network` found.

  Attributes:
    rows: first-level module -> (parameters, multiply-adds), in the network's order.
    parameters: of all.
    multiply_adds: of all, for one image.
    without_classifier: less those of the module named `classifier`, the layer that makes the classes: Table 1's
      convention. Of VGG-16 and AlexNet that is the third FC layer alone, of SqueezeNet a convolution, conv10.
  """

  rows: dict[str, tuple[int, int]]
  parameters: int
  multiply_adds: int
  without_classifier: int


def count_network(model, image_size: int) -> NetworkCount:
  """Parameters and multiply-adds of a Flax image classifier for one square RGB image."""
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  # Initialisation runs the network once and has no matrix product of its own: one trace gives both.
  params = {}

  def init(key, image):
    variables = model.init(key, image)
    for name, own in variables["params"].items():  # in the network's order, which a returned tree would lose
      params[name] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
    return variables

  by_scope = count_multiply_adds(init, key, image)
  rows = {}
  for name, own in params.items():
    rows[name] = (count_parameters(own), sum(n for scope, n in by_scope.items() if name in scope.split("/")))
  total = sum(by_scope.values())
  return NetworkCount(rows, count_parameters(params), total, total - rows.get("classifier", (0, 0))[1])


def overview(counted: NetworkCount, image_size: int) -> str:
  """A table of a network's modules."""
  rows = [(name, *counts) for name, counts in counted.rows.items()]
  rows.append(("total", counted.parameters, counted.multiply_adds))
  table = tabulate.tabulate(rows, ("module", "parameters", "multiply-adds"), "plain", intfmt=",")
  return f"{table}  for one {image_size}x{image_size} image"
