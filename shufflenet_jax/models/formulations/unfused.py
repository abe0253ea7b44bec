"""Calls that XLA:CPU compiles on their own."""

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def unfused(function: Callable, *arrays):
  """`function(*arrays)`, not fused with the code around it: its arguments and results are written to memory.

  XLA:CPU fuses an elementwise operation into every operation that reads its result, and each of them then recomputes
  it: every unit would, for instance, recompute the sums of all earlier units. An optimization barrier would not prevent
  that, because XLA:CPU ignores it.

  `function` should use `jax.lax` in place of those `jnp` functions that are themselves a `jit`, because each of them
  would be compiled on its own as well.
  """
  with set_xla_metadata(inlineable="false"):
    return jax.jit(function)(*arrays)
