"""Rounding to 8 bits, and what it is calibrated on."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from shufflenet_jax.deployment import algebra, evaluate, formats, int8, layers, runtimes
from shufflenet_jax.deployment.int8 import Statistics
from shufflenet_jax.errors import UserError
from tests.deployment import networks

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


def rounded(network, before=lambda output: output):
  """The network's layers with rounded kernels, and their statistics on noise."""
  output = before(network.layers())
  values = evaluate.values(output, networks.pictures(4))
  known = {layer: Statistics(np.asarray(x, float).mean(tuple(range(x.ndim - 1))), float(x.min()), float(x.max()))
           for layer, x in values.items()}  # fmt: skip
  return int8.with_rounded_kernels(output, known)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_int8_kernels_are_computed_in_float32(suffix):
  network = networks.make("scale=0.25,groups=3")
  output, _ = rounded(network)
  images = networks.pictures(2)
  expected = np.asarray(evaluate.values(output, images)[output])
  logits = runtimes.loaded(suffix, formats.encode(network, output, suffix, None, "weights"))(images)
  np.testing.assert_allclose(logits, expected, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("arguments", ["scale=0.25,groups=3,se=True", "network=mobilenet_v1,scale=0.25"])
def test_all_in_int8_is_near_to_float32(arguments):
  network = networks.make(arguments)
  output, statistics = rounded(network, algebra.without_average_pools)
  images = networks.pictures(4)
  expected = np.asarray(network.function(images))
  logits = runtimes.loaded(".tflite", formats.encode(network, output, ".tflite", None, "full", statistics))(images)
  # How the logits of each picture differ from their mean, as noise gives nearly the same logits for all.
  assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99
  assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


def test_operators_have_the_versions_that_int8_needs():
  network = networks.make("scale=0.25,groups=3,se=True")
  output, statistics = rounded(network, algebra.without_average_pools)
  versions = {}
  for kind in ("", "weights", "full"):
    model = schema.ModelT.InitFromPackedBuf(formats.encode(network, output, ".tflite", None, kind, statistics), 0)
    versions[kind] = {(code.builtinCode, code.version) for code in model.operatorCodes}
  code = schema.BuiltinOperator
  assert {version for kind, version in versions[""]} == {1, 6}  # 6: grouped convolutions
  assert (code.DEQUANTIZE, 5) in versions["weights"]
  assert {(code.CONV_2D, 3), (code.CONV_2D, 6), (code.FULLY_CONNECTED, 12), (code.PAD, 2)} <= versions["full"]


@pytest.mark.parametrize("name", ["LocalResponseNorm", "MaxPool", "Affine"])
def test_layers_that_int8_does_not_have_are_refused(name):
  x = layers.Float((layers.Input((), (4, 4, 3)),), (4, 4, 3))
  shifted = layers.Affine((x,), (4, 4, 3), np.ones(3), -np.ones(3))
  output = {
    "LocalResponseNorm": layers.LocalResponseNorm((x,), (4, 4, 3), 2, 2.0, 1e-4, 0.75),
    "MaxPool": layers.MaxPool((shifted,), (2, 2, 3), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "Affine": layers.Affine((x,), (4, 4, 3), np.full(3, 0.5), np.zeros(3)),
  }[name]
  with pytest.raises(UserError, match=rf"--int8=full is not possible: .* in int8 \({name}\); use --int8=weights"):
    int8.check_full(output)
  int8.check_full(shifted)
