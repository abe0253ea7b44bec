"""ShuffleNetV1 against the stored outputs of PyTorch networks with random weights (tests/golden)."""

import re

import jax
import numpy as np
import pytest

from shufflenet_jax.errors import UserError
from shufflenet_jax.interop.torch_layouts import convert
from shufflenet_jax.models import build
from shufflenet_jax.models.shufflenet import stem_channels
from tests import golden

STORED = golden.stored()


@pytest.mark.parametrize("name", golden.CASES)
def test_network_gives_pytorchs_logits(name):
  layout, groups, scale = golden.CASES[name]
  shapes, expected = STORED[name]
  variables, model, _ = convert(golden.random_state_dict(shapes))
  assert (model["groups"], model["scale"], model["repeats"]) == (groups, scale, (4, 8, 4))
  assert (model["stem"] or stem_channels(groups, scale)) == shapes[next(iter(shapes))][0]
  assert (model["shuffle"], model["classifier_bias"]) == (
    ("release", False) if layout == "release" else ("paper", True)
  )
  net = build.network(model)
  logits = jax.jit(net.apply)(variables, golden.images())
  np.testing.assert_allclose(logits, expected, atol=2e-4 * np.abs(expected).max())


def test_the_release_of_g8_at_half_scale_has_a_stem_of_16_and_needs_its_own_shuffle():
  shapes, expected = STORED["release_g8_0.5x"]
  assert shapes["first_conv.0.weight"][0] == 16
  variables, model, _ = convert(golden.random_state_dict(shapes))
  net = build.network(model | {"shuffle": "paper"})
  assert np.abs(jax.jit(net.apply)(variables, golden.images()) - expected).max() > 0.1 * np.abs(expected).max()


def state_dict():
  return golden.random_state_dict(STORED["release_g3_0.5x"][0])


def test_unknown_keys_are_shown_with_what_was_looked_for():
  with pytest.raises(UserError, match=r"looked for first_conv.0.weight.*pytorchcv\); saw 1 keys: conv1.weight"):
    convert({"conv1.weight": np.zeros((64, 3, 7, 7))})


def test_a_missing_key_is_named():
  weights = state_dict()
  del weights["features.5.branch_main_2.1.bias"]
  with pytest.raises(UserError, match="features.5.branch_main_2.1.bias is missing from what looks like the authors"):
    convert(weights)


def test_a_key_of_no_layer_is_named():
  with pytest.raises(UserError, match="1 keys of the authors' release belong to no known layer: extra.weight"):
    convert(state_dict() | {"extra.weight": np.zeros(3)})


@pytest.mark.parametrize("prefix", ["features.7.", "features.7.branch_main_1.0.", "features.12."])
def test_a_missing_unit_is_named(prefix):
  """Units are counted by their keys; features.12 begins Stage 4."""
  weights = {key: value for key, value in state_dict().items() if not key.startswith(prefix)}
  key = f"{prefix.removesuffix('branch_main_1.0.')}branch_main_1.0.weight"
  with pytest.raises(UserError, match=f"^{key} is missing"):
    convert(weights)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("features.3.branch_main_1.4.weight", np.nan, "holds 1 values that are NaN or infinite in float32"),
    ("features.3.branch_main_1.4.weight", 1e39, "holds 1 values that are NaN or infinite in float32"),
    ("features.3.branch_main_1.4.running_var", -1.0, "holds 1 negative variances"),
  ],
)
def test_values_of_no_network_are_named(key, value, message):
  weights = {k: v.astype(np.float64) for k, v in state_dict().items()}
  weights[key][2] = value
  with pytest.raises(UserError, match=f"^{key} {message}"):
    convert(weights)


def test_complex_weights_are_named():
  key = "first_conv.0.weight"
  with pytest.raises(UserError, match=f"^{key} holds complex numbers"):
    convert(state_dict() | {key: np.zeros((12, 3, 3, 3), np.complex64)})


# Depthwise arrays are reordered during the conversion, which would silently drop the end of one that is too long.
DEPTHWISE_NORM = "features.7.branch_main_1.4.weight"


@pytest.mark.parametrize(
  ("key", "shape", "expected"),
  [
    (DEPTHWISE_NORM, (75,), r"\(60,\)"),
    (DEPTHWISE_NORM, (59,), r"\(60,\)"),
    (DEPTHWISE_NORM, (), r"\(60,\)"),
    (DEPTHWISE_NORM, (60, 1), r"\(60,\)"),
    ("features.7.branch_main_1.3.weight", (60, 1, 5, 5), r"\(60, 1, 3, 3\)"),
    ("features.7.branch_main_1.3.weight", (60, 2, 3, 3), r"\(60, 1, 3, 3\)"),
    ("features.5.branch_main_2.1.weight", (3,), r"\(240,\)"),
    ("first_conv.0.weight", (12, 1, 3, 3), r"\(12, 3, 3, 3\)"),
    ("first_conv.1.running_var", (), r"\(12,\)"),
    ("first_conv.0.weight", (), "four .out, in, height, width., none of them 0"),
    ("first_conv.0.weight", (13, 3, 3, 3), "multiple of 3"),
    ("first_conv.0.weight", (120, 3, 3, 3), "the stem must have fewer channels than Stage 2, which has 120"),
    ("features.0.branch_main_1.3.weight", (), "four .out"),
    ("features.0.branch_main_2.0.weight", (3,), "four .out"),
    ("features.0.branch_main_2.0.weight", (3, 0, 1, 1), "none of them 0"),
    ("classifier.0.weight", (0, 480), "two .classes, channels., none of them 0"),
    ("classifier.0.weight", (11, 481), "Stage 4 makes 480 channels"),
  ],
)
def test_a_shape_that_does_not_fit_is_named_with_what_was_expected(key, shape, expected):
  with pytest.raises(UserError) as raised:
    convert(state_dict() | {key: np.ones(shape, np.float32)})
  assert str(raised.value).startswith(f"{key} has shape {shape}; "), raised.value
  assert re.search(expected, str(raised.value)), raised.value


def test_shapes_of_no_scale_are_refused():
  weights = state_dict()
  weights["features.0.branch_main_2.0.weight"] = weights["features.0.branch_main_2.0.weight"][:, :6]
  with pytest.raises(UserError, match="stages of 120, 240, 480 channels in 5 groups match no scale"):
    convert(weights)
