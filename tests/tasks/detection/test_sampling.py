"""Samples: their sizes, that they are random, and that each depends on its key only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.tasks.detection import sampling

TOTAL, MOST = 16, 8
sample = jax.jit(sampling.sample, static_argnums=(3, 4))
sample_masks = jax.jit(sampling.sample_masks, static_argnums=(3, 4))


def candidates(positives: int, negatives: int, others: int = 5, seed: int = 0):
  kinds = np.random.default_rng(seed).permutation([0] * positives + [1] * negatives + [2] * others)
  return jnp.asarray(kinds == 0), jnp.asarray(kinds == 1)


@pytest.mark.parametrize(
  ("positives", "negatives", "drawn"),
  [
    (20, 60, (8, 8)),
    (3, 60, (3, 13)),
    (0, 60, (0, 16)),
    (20, 4, (8, 4)),
    (2, 1, (2, 1)),
    (0, 0, (0, 0)),
    (20, 0, (8, 0)),
  ],
)
def test_a_sample_has_at_most_so_many_positives_and_is_filled_with_negatives(positives, negatives, drawn):
  positive, negative = candidates(positives, negatives)
  chosen = sample(jax.random.key(1), positive, negative, TOTAL, MOST)
  index, is_positive, valid = (np.asarray(x) for x in chosen)
  assert index.shape == (TOTAL,)
  assert (is_positive.sum(), (valid & ~is_positive).sum()) == drawn
  assert len(set(index[valid])) == sum(drawn)  # without replacement
  assert np.asarray(positive)[index[is_positive]].all()
  assert np.asarray(negative)[index[valid & ~is_positive]].all()
  assert ((index >= 0) & (index < len(positive))).all()

  masks = sample_masks(jax.random.key(1), positive, negative, TOTAL, MOST)
  assert tuple(int(mask.sum()) for mask in masks) == drawn
  np.testing.assert_array_equal(np.flatnonzero(masks[0]), np.sort(index[is_positive]))
  np.testing.assert_array_equal(np.flatnonzero(masks[1]), np.sort(index[valid & ~is_positive]))


def test_every_candidate_is_drawn_equally_often():
  positive, negative = candidates(20, 60)
  keys = jax.random.split(jax.random.key(0), 2000)
  masks = jax.vmap(lambda key: sample_masks(key, positive, negative, TOTAL, MOST))(keys)
  for mask, of, probability in zip(masks, (positive, negative), (8 / 20, 8 / 60)):
    often = np.asarray(mask, np.float64).mean(0)[np.asarray(of)]
    assert abs(often - probability).max() < 5 * np.sqrt(probability / 2000)
    assert not np.asarray(mask)[:, ~np.asarray(of)].any()


def test_a_sample_depends_on_its_key_and_not_on_the_batch():
  pictures = [candidates(20, 60, seed=seed) for seed in range(4)]
  positive, negative = (jnp.stack(x) for x in zip(*pictures))
  keys = jax.random.split(jax.random.key(0), 4)
  together = jax.vmap(lambda *x: sample(*x, TOTAL, MOST))(keys, positive, negative)
  for i in range(4):
    alone = sample(keys[i], positive[i], negative[i], TOTAL, MOST)
    for ours, theirs in zip(alone, together):
      np.testing.assert_array_equal(ours, theirs[i])
  again = sample(jax.random.key(9), positive[0], negative[0], TOTAL, MOST)
  assert not np.array_equal(again.index, together.index[0])
