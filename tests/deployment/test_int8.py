"""Rounding to 8 bits, and what it is calibrated on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shufflenet_jax.deployment import int8, layers
from shufflenet_jax.deployment.int8 import Statistics

RANDOM = np.random.default_rng(0)


def test_a_kernel_is_rounded_to_a_127th_of_the_largest_weight_of_each_channel():
  kernel = RANDOM.normal(size=(3, 3, 4, 6)) * 10.0 ** np.arange(-3, 3)
  kernel[..., 2] = 0
  rounded = int8.round_kernel(kernel, -1)
  assert rounded.values.dtype == np.int8 and np.abs(rounded.values).max((0, 1, 2)).tolist() == [
    127,
    127,
    0,
    127,
    127,
    127,
  ]
  error = np.abs(rounded.values * rounded.scales.astype(float) - kernel).max((0, 1, 2))
  assert (error <= rounded.scales * 0.501).all()


def test_a_rounded_kernel_stays_as_it_is():
  kernel = RANDOM.normal(size=(5, 8))
  once = int8.round_kernel(kernel, 0)
  again = int8.round_kernel(once.values * once.scales.astype(float)[:, None], 0)
  np.testing.assert_array_equal(again.values, once.values)
  np.testing.assert_array_equal(again.scales, once.scales)


def test_the_bias_corrects_the_mean_of_each_output():
  x = layers.Input((), (4, 4, 6))
  conv = layers.Conv(
    (x,), (4, 4, 8), RANDOM.normal(size=(1, 1, 3, 8)), RANDOM.normal(size=8), (1, 1), ((0, 0), (0, 0)), 2
  )
  values = RANDOM.normal(2, 1, size=(1000, 6)) + np.arange(6)
  known = {layer: Statistics(values.mean(0), 0, 1) for layer in (x, conv)}
  rounded, statistics = int8.with_rounded_kernels(conv, known)

  def mean_output(layer):
    groups = np.split(values.mean(0), 2), np.split(layer.kernel[0, 0], 2, axis=-1)
    return np.concatenate([mean @ kernel for mean, kernel in zip(*groups)]) + layer.bias

  assert np.abs(rounded.kernel - conv.kernel).max() > 1e-3
  np.testing.assert_allclose(mean_output(rounded), mean_output(conv))
  assert statistics[rounded] is known[conv]


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_a_range_is_covered_and_zero_is_exact(low, high):
  low, high = sorted((low, high))
  scale, zero_point = int8.scale_of_range(low, high)
  assert scale > 0 and -128 <= zero_point <= 127
  smallest, largest = (scale * (q - zero_point) for q in (-128, 127))
  assert smallest <= min(low, 0) + scale and largest >= max(high, 0) - scale


def test_a_concatenation_has_one_scale_with_the_convolutions_before_it():
  x = layers.Float((layers.Input((), (4, 4, 3)),), (4, 4, 3))
  conv = layers.Conv((x,), (4, 4, 2), np.ones((1, 1, 3, 2)), np.zeros(2), (1, 1), ((0, 0), (0, 0)), 1)
  pool = layers.MaxPool((conv,), (4, 4, 2), (1, 1), (1, 1), ((0, 0), (0, 0)))
  both = layers.Concat((conv, x), (4, 4, 5))
  output = layers.Concat((both, pool), (4, 4, 7))
  known = {layer: Statistics(np.zeros(layer.shape[-1]), -i, i) for i, layer in enumerate(layers.in_order(output), 1)}
  scales = int8.activation_scales(output, known)
  assert scales[conv] == scales[both] == scales[pool] != scales[x]


@pytest.mark.parametrize("count", [2, 7, 100])
def test_parts_of_a_folder_are_apart_and_the_same_every_time(tmp_path, count):
  from shufflenet_jax.deployment import calibration

  for i in range(count):
    (tmp_path / f"{i % 3}").mkdir(exist_ok=True)
    (tmp_path / f"{i % 3}" / f"{i}.jpg").write_bytes(b"")
  found = calibration.find(str(tmp_path), ("1", "zebra", "0"))
  assert found == calibration.find(str(tmp_path), ("1", "zebra", "0"))
  assert len(found.calibration) == count // 2 and {*found.calibration, *found.held_out} == set(
    map(str, tmp_path.glob("*/*.jpg"))
  )
  assert all(found.labels[path] == {"0": 2, "1": 0}[path.split("/")[-2]] for path in found.labels)
  assert len(found.labels) == sum(path.split("/")[-2] in "01" for path in found.held_out)
