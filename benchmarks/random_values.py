"""Random weights for benchmarks, whose times do not depend on them."""

import math

import jax
import numpy as np


def random_values(shapes):
  """Values for a tree of a network's variables, or of a training state: He-normal kernels, norms that change nothing.

  Initialising by the module would compile a program for each network, which takes up to a minute.

  Args:
    shapes: a tree of `jax.ShapeDtypeStruct`.

  Returns:
    The same tree of NumPy arrays.
  """
  random = np.random.default_rng(0)

  def value(path, shape) -> np.ndarray:
    name = "" if "opt_state" in jax.tree_util.keystr(path) else getattr(path[-1], "key", "")
    if name != "kernel":
      return np.full(shape.shape, name in ("scale", "var"), shape.dtype)
    *fan_in, _ = shape.shape
    return random.standard_normal(shape.shape, np.float32) * np.float32((2 / math.prod(fan_in)) ** 0.5)

  return jax.tree.map_with_path(value, shapes)
