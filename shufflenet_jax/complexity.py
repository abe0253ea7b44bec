"""Parameters and multiply-adds, counted from the built network: from its arrays and its traced computation."""

import collections
import math

import jax
import jax.numpy as jnp


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
    kernel = eqn.invars[1].aval.shape
    out_features = eqn.params["dimension_numbers"].rhs_spec[0]
    per_output = math.prod(kernel) // kernel[out_features]  # taps x (c_in / groups)
    return math.prod(eqn.outvars[0].aval.shape) * per_output
  return 0


def _walk(jaxpr, scope: str, times: int, counts: collections.Counter):
  for eqn in jaxpr.eqns:
    here = "/".join(filter(None, (scope, str(eqn.source_info.name_stack))))
    if n := _multiply_adds(eqn):
      counts[here] += times * n
    inner_times = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
    ):
      if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
        _walk(getattr(inner, "jaxpr", inner), here, inner_times, counts)


def count_multiply_adds(function, *args) -> dict[str, int]:
  """Multiply-adds of the convolutions and matrix products in `function(*args)`, by name scope.

  Nothing is computed: the function is traced on shapes. Padding counts as
  input, as in the paper's tables; additions, norms and pools do not count.

  Args:
    function: any function that JAX can trace.
    *args: trees of arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    Name scope (Flax module path) -> multiply-adds; their sum is the total.
  """
  counts = collections.Counter()
  _walk(jax.make_jaxpr(function)(*args).jaxpr, "", 1, counts)
  return dict(counts)


def model_overview(model, image_size: int) -> tuple[dict[str, tuple[int, int]], int, int]:
  """Parameters and multiply-adds of a Flax network for one square RGB image.

  Returns:
    (rows, parameters, multiply_adds); rows: first-level module -> (parameters, multiply-adds).
  """
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  by_scope = count_multiply_adds(model.apply, variables, image)
  # Trees come sorted by name; the trace has the network's own order (norms go with their convolution).
  order = list(dict.fromkeys(part for scope in by_scope for part in scope.split("/")))
  rows = {}
  for name in sorted(variables["params"], key=lambda n: order.index(n.removesuffix("_norm"))):
    params = variables["params"][name]
    macs = sum(n for scope, n in by_scope.items() if name in scope.split("/"))
    rows[name] = (count_parameters(params), macs)
  return rows, count_parameters(variables["params"]), sum(by_scope.values())
