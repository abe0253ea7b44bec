"""Draws the anchors and proposals to train on, at random and without replacement."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# In the keys that `_shuffle` makes, the two highest bits tell positives (0), negatives (1) and the rest (2) apart.
_CLASS_SHIFT = 30


class Sample(NamedTuple):
  """A sample of fixed size, its positives first.

  Attributes:
    index: int32 (total,), which of the p boxes.
    positive: bool (total,).
    valid: bool (total,), False where there were fewer than `total` to draw.
  """

  index: jax.Array
  positive: jax.Array
  valid: jax.Array


def sample(key: jax.Array, positive: jax.Array, negative: jax.Array, total: int, max_positive: int) -> Sample:
  """At most `max_positive` of the positives, and negatives for the rest of `total`.

  Args:
    key: a JAX key, of the example and the step.
    positive, negative: bool (p,), no box being both.
    total: size of the sample.
    max_positive: how many of it may be positive.
  """
  keys, positives, n_positive, n_negative = _shuffle(key, positive, negative, total, max_positive)
  i = jnp.arange(total, dtype=jnp.int32)
  at = jnp.where(i < n_positive, i, i - n_positive + positives)  # negatives follow all positives
  index = jnp.sort(keys)[jnp.minimum(at, len(keys) - 1)] & _index_mask(len(keys))
  return Sample(index.astype(jnp.int32), i < n_positive, i < n_positive + n_negative)


def sample_masks(
  key: jax.Array, positive: jax.Array, negative: jax.Array, total: int, max_positive: int
) -> tuple[jax.Array, jax.Array]:
  """The sample of `sample` as masks: bool (p,) of the positives, and of the negatives."""
  keys, positives, n_positive, n_negative = _shuffle(key, positive, negative, total, max_positive)
  in_order = jnp.sort(keys)

  def first(of, count, begin):
    last = in_order[jnp.clip(begin + count - 1, 0, len(keys) - 1)]
    return of & (keys <= last) & (count > 0)

  return first(positive, n_positive, 0), first(negative, n_negative, positives)


def _shuffle(
  key: jax.Array, positive: jax.Array, negative: jax.Array, total: int, max_positive: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """A key for each box: sorted keys have the positives first, then the negatives, then the rest, each in random order.

  The lowest bits of a key are the box's index. So no two keys are equal, and the sorted keys alone identify the boxes.

  Returns:
    The keys, uint32 (p,); the number of positives; and how many positives and how many negatives the sample has.
  """
  (p,) = positive.shape
  index_mask = _index_mask(p)
  class_bits = jnp.where(positive, 0, jnp.where(negative, 1, 2)).astype(jnp.uint32) << _CLASS_SHIFT
  random_bits = jax.random.bits(key, (p,), jnp.uint32) >> (32 - _CLASS_SHIFT)
  keys = class_bits | (random_bits & ~index_mask) | jnp.arange(p, dtype=jnp.uint32)
  positives, negatives = positive.sum(dtype=jnp.int32), negative.sum(dtype=jnp.int32)
  n_positive = jnp.minimum(positives, max_positive)
  return keys, positives, n_positive, jnp.minimum(negatives, total - n_positive)


def _index_mask(p: int) -> jax.Array:
  return jnp.uint32(2 ** max(p - 1, 1).bit_length() - 1)
