"""Writes a network as StableHLO, in the format of `jax.export`: for JAX on CPUs, TPUs and CUDA GPUs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PLATFORMS = ("cpu", "tpu", "cuda")


def encode(function: Callable, height: int, width: int, batch: int | None) -> bytes:
  """The file's bytes: uint8 pictures (n, height, width, 3) -> logits, for any n, or for `batch`, on all `PLATFORMS`.

  Args:
    function: of the pictures, with its parameters bound.
    height, width: of the pictures.
    batch: the only batch size that the file accepts; None for any.
  """
  (n,) = (batch,) if batch else jax.export.symbolic_shape("n")
  images = jax.ShapeDtypeStruct((n, height, width, 3), jnp.uint8)
  return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())
