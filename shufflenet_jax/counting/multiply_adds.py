"""Parameters and multiply-adds of any Flax network, counted from its arrays and its traced computation."""

import collections
import math
import typing

import jax
import jax.extend.core
import jax.numpy as jnp
import tabulate


def count_parameters(params) -> int:
  """Number of values in a tree of arrays or `jax.ShapeDtypeStruct`s."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _multiply_adds(eqn) -> int:
  """Multiply-adds of one equation of a jaxpr; 0 unless it is a matrix product or a convolution."""
  if eqn.primitive.name == "dot_general":
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)
  if eqn.primitive.name == "conv_general_dilated":
    return _multiply_adds_of_convolution(eqn)
  return 0


def _multiply_adds_of_convolution(eqn) -> int:
  image, kernel, out = (v.aval.shape for v in (*eqn.invars, *eqn.outvars))
  # Each lists the axes of its array: (batch, channels, *sides), the kernel's (output channels, input channels, *sides).
  image_dims, kernel_dims, out_dims = eqn.params["dimension_numbers"]
  count = out[out_dims[0]] * out[out_dims[1]] * kernel[kernel_dims[1]]
  for i in range(len(image_dims) - 2):
    side, width, positions = image[image_dims[2 + i]], kernel[kernel_dims[2 + i]], out[out_dims[2 + i]]
    spacing = eqn.params["lhs_dilation"][i]
    if spacing == 1:
      count *= positions * width
      continue
    # A transposed convolution puts zeros between the values of the image. Most products have such a zero as a factor
    # and are never computed; count those that have a value.
    stride, dilation = eqn.params["window_strides"][i], eqn.params["rhs_dilation"][i]
    first = -eqn.params["padding"][i][0]
    read = (first + p * stride + k * dilation for p in range(positions) for k in range(width))
    count *= sum(at % spacing == 0 and 0 <= at < side * spacing for at in read)
  return count


def _add_counts(jaxpr, scope: str, repetitions: int, counts: collections.Counter) -> None:
  """Adds the multiply-adds of a jaxpr, and of those within it, to `counts` by name scope."""
  for eqn in jaxpr.eqns:
    here = "/".join(filter(None, (scope, str(eqn.source_info.name_stack))))
    if n := _multiply_adds(eqn):
      counts[here] += repetitions * n
    inner_repetitions = repetitions * eqn.params["length"] if eqn.primitive.name == "scan" else repetitions
    params = dict(eqn.params)
    if params.get("branches_platforms"):  # `lax.platform_dependent`: the same computation several times, default last
      params["branches"] = params["branches"][-1:]
    for inner in jax.extend.core.jaxprs_in_params(params):
      _add_counts(inner, here, inner_repetitions, counts)


def count_multiply_adds(function, *args) -> dict[str, int]:
  """Multiply-adds of the convolutions and matrix products in `function(*args)`, by name scope.

  Nothing is computed: the function is traced on shapes. Additions, norms and
  pools do not count. Padding counts as input, as in the paper's tables, but
  the zeros within and around the input of a transposed convolution do not.
  The body of a `lax.while_loop` counts once, each branch of a `lax.cond`
  counts, and of a `lax.platform_dependent` only the default counts.

  Args:
    function: any function that JAX can trace.
    *args: trees of arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    Name scope (Flax module path) -> multiply-adds; their sum is the total.
  """
  counts = collections.Counter()
  _add_counts(jax.make_jaxpr(function)(*args).jaxpr, "", 1, counts)
  return dict(counts)


class NetworkCount(typing.NamedTuple):
  """The parameters and multiply-adds of a network.

  Attributes:
    rows: first-level module -> (parameters, multiply-adds), in the network's order.
    parameters: the total number of parameters.
    multiply_adds: the total for one image.
    without_classifier: the total minus the multiply-adds of the module named `classifier`, the layer that outputs the
      classes, as Table 1 counts. In VGG-16 and AlexNet, that is only the third fully connected layer; in SqueezeNet,
      the convolution conv10.
  """

  rows: dict[str, tuple[int, int]]
  parameters: int
  multiply_adds: int
  without_classifier: int

  def overview(self, image_size: int) -> str:
    """A table of the network's modules."""
    return f"{table(self, 'module')}  for one {image_size}x{image_size} image"


def count_network(model, image_size: int) -> NetworkCount:
  """Parameters and multiply-adds of a Flax image classifier for one square RGB image."""
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  if getattr(model, "lowering", None) == "auto":  # the counts are those of the reference; "auto" traces all platforms'
    model = model.clone(lowering="reference")
  # Initialisation runs the network once and adds no matrix product to it, so one trace gives both counts.
  params = {}

  def init(key, image):
    variables = model.init(key, image)
    for name, own in variables["params"].items():  # in the network's order, which the returned tree would lose
      params[name] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
    return variables

  by_scope = count_multiply_adds(init, key, image)
  rows = {}
  for name, own in params.items():
    rows[name] = (count_parameters(own), sum(n for scope, n in by_scope.items() if name in scope.split("/")))
  total = sum(by_scope.values())
  return NetworkCount(rows, count_parameters(params), total, total - rows.get("classifier", (0, 0))[1])


def table(counted, heading: str) -> str:
  """The `rows` of counts, and the total, as text; `heading` is that of the first column."""
  rows = [(name, *counts) for name, counts in counted.rows.items()]
  rows.append(("total", counted.parameters, counted.multiply_adds))
  return tabulate.tabulate(rows, (heading, "parameters", "multiply-adds"), "plain", intfmt=",")
