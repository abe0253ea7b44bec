"""ShuffleNetV1 against PyTorch networks with random weights, whose outputs are stored (tests/golden)."""

import jax
import numpy as np
import pytest

from shufflenet_jax import network
from shufflenet_jax.errors import UserError
from shufflenet_jax.interop.torch_layouts import convert
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
  net = network.build(model | {"dtype": "float32"})
  logits = jax.jit(net.apply)(variables, golden.images())
  np.testing.assert_allclose(logits, expected, atol=2e-4 * np.abs(expected).max())


def test_the_release_of_g8_at_half_scale_has_a_stem_of_16_and_needs_its_own_shuffle():
  shapes, expected = STORED["release_g8_0.5x"]
  assert shapes["first_conv.0.weight"][0] == 16
  variables, model, _ = convert(golden.random_state_dict(shapes))
  net = network.build(model | {"dtype": "float32", "shuffle": "paper"})
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
  with pytest.raises(UserError, match="1 keys of the authors' release are of no known layer: extra.weight"):
    convert(state_dict() | {"extra.weight": np.zeros(3)})


def test_nan_is_named():
  weights = state_dict()
  weights["features.3.branch_main_1.4.weight"][2] = np.nan
  with pytest.raises(UserError, match="features.3.branch_main_1.4.weight holds 1 values that are NaN"):
    convert(weights)


def test_shapes_of_no_scale_are_refused():
  weights = state_dict()
  for key in list(weights):
    if key.startswith("features.") and int(key.split(".")[1]) >= 12:
      del weights[key]
  with pytest.raises(UserError, match="stage 4 has no units"):
    convert(weights)
  weights = state_dict()
  weights["features.0.branch_main_2.0.weight"] = weights["features.0.branch_main_2.0.weight"][:, :6]
  with pytest.raises(UserError, match="stages of 120, 240, 480 channels in 5 groups are no scale"):
    convert(weights)
