"""From a network to plain layers: what is merged, what stays, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.deployment import algebra, evaluate, layers, trace
from shufflenet_jax.errors import UserError
from shufflenet_jax.models.baselines.alexnet import local_response_norm
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.layers import conv, relu

RANDOM = np.random.default_rng(0)


def normal(*shape):
  return RANDOM.normal(size=shape).astype(np.float32)


def kinds(output):
  return [type(layer).__name__ for layer in layers.in_order(output)]


def traced(function, height=6, width=8):
  """The layers of a function, having checked that they compute the same."""
  output = trace.layers(function, height, width)
  images = RANDOM.integers(0, 256, (2, height, width, 3), np.uint8)
  np.testing.assert_allclose(
    evaluate.values(output, images)[output], function(jnp.asarray(images)), rtol=1e-4, atol=1e-3
  )
  return output


KERNEL, GROUPED, SCALE, OFFSET = normal(3, 3, 3, 12), normal(1, 1, 4, 12), normal(1, 1, 1, 12), normal(1, 1, 1, 12)


def pooled(x):
  return x.mean((1, 2))


def test_a_batch_norm_is_merged_into_the_convolution_before_it():
  output = traced(lambda x: pooled(relu(conv(x.astype(jnp.float32), KERNEL, 2) * SCALE + OFFSET)))
  assert kinds(output) == ["Input", "Float", "Conv", "Mean"] and output.x.relu


def test_a_batch_norm_and_relu_behind_a_shuffle_are_merged_as_well():
  def function(x):
    x = channel_shuffle(conv(x.astype(jnp.float32), KERNEL), 3)
    return pooled(conv(relu(x * SCALE + OFFSET), GROUPED, groups=3))

  output = traced(function)
  assert kinds(output) == ["Input", "Float", "Conv", "Shuffle", "Conv", "Mean"]


def test_the_mean_of_pixels_stays_as_padding_is_zeros():
  mean, std = normal(1, 1, 1, 3), np.abs(normal(1, 1, 1, 3)) + 1
  output = traced(lambda x: pooled(conv((x.astype(jnp.float32) - mean) / std, KERNEL)))
  assert kinds(output) == ["Input", "Float", "Affine", "Conv", "Mean"]
  np.testing.assert_array_equal(layers.in_order(output)[2].scale, 1)  # the division is in the kernel


def test_a_shuffle_of_one_group_or_of_single_channels_is_nothing():
  for groups in (1, 12):
    output = traced(lambda x, g=groups: pooled(channel_shuffle(conv(x.astype(jnp.float32), KERNEL), g)))
    assert "Shuffle" not in kinds(output)


def test_relu_is_dropped_where_nothing_is_negative():
  output = traced(lambda x: pooled(relu(relu(x.astype(jnp.float32)))))
  assert kinds(output) == ["Input", "Float", "Mean"]


def test_relu_behind_a_concatenation_moves_before_it():
  def function(x):
    x = x.astype(jnp.float32)
    return pooled(relu(jnp.concatenate([x, conv(x, KERNEL)], -1)))

  output = traced(function)
  assert kinds(output) == ["Input", "Float", "Conv", "Concat", "Mean"] and layers.in_order(output)[2].relu


def test_local_response_norm_is_one_layer():
  output = traced(lambda x: pooled(local_response_norm(conv(x.astype(jnp.float32), KERNEL))))
  assert kinds(output) == ["Input", "Float", "Conv", "LocalResponseNorm", "Mean"]


def test_a_grouped_convolution_and_a_shuffle_become_a_dense_one():
  def function(x):
    x = conv(x.astype(jnp.float32), KERNEL)
    return pooled(channel_shuffle(conv(x, GROUPED, groups=3), 3))

  output = algebra.without_groups(traced(function))
  assert kinds(output) == ["Input", "Float", "Conv", "Conv", "Mean"] and output.x.groups == 1
  images = RANDOM.integers(0, 256, (2, 6, 8, 3), np.uint8)
  np.testing.assert_allclose(evaluate.values(output, images)[output], function(jnp.asarray(images)), rtol=1e-4)


def test_an_average_pool_becomes_a_depthwise_convolution():
  def function(x):
    return pooled(
      jax.lax.reduce_window(x.astype(jnp.float32), 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME") / 9
    )

  before = traced(function)
  output = algebra.without_average_pools(before)
  assert kinds(before)[2:] == ["AveragePool", "Mean"] and kinds(output)[2:] == ["Conv", "Mean"]
  images = RANDOM.integers(0, 256, (2, 6, 8, 3), np.uint8)
  np.testing.assert_allclose(evaluate.values(output, images)[output], function(jnp.asarray(images)), rtol=1e-4)


@pytest.mark.parametrize(
  ("function", "operation"),
  [
    (lambda x: pooled(jnp.sin(x.astype(jnp.float32))), "sin"),
    (lambda x: pooled(jnp.maximum(x.astype(jnp.float32), 1.0)), "max"),
    (lambda x: pooled(x.astype(jnp.float32) + normal(1, 6, 1, 3)), "add"),
    (lambda x: pooled(jax.lax.rev(x.astype(jnp.float32), (1,))), "rev"),
    (lambda x: x.astype(jnp.float32).mean((1, 3)), "reduce_sum"),
  ],
)
def test_other_operations_are_refused_by_name(function, operation):
  with jax.named_scope("Net/layer"), pytest.raises(UserError, match=f"uses the operation {operation} "):
    trace.layers(function, 6, 8)
