"""Faster R-CNN on both backbones: its parameters, shapes, dtypes and initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.models.baselines.mobilenet import MobileNetV1
from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.models.shufflenet import ShuffleNetV1

BACKBONES = [ShuffleNetV1(3, 0.25, repeats=(1, 2, 2), lowering="dense"), MobileNetV1(0.25)]
IDS = ["shufflenet", "mobilenet"]


def variables_of(model, images):
  return jax.jit(model.init)(jax.random.key(0), images)


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_parameters_are_those_of_the_classifier_besides_rpn_and_head(backbone):
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  detector = jax.eval_shape(FasterRCNN(backbone, num_classes=5).init, key, image)
  classifier = jax.eval_shape(backbone.init, key, image)
  del classifier["params"]["classifier"]
  own = {name: detector["params"].pop(name) for name in ("rpn", "box_head")}
  assert detector == classifier
  assert {name: set(layers) for name, layers in own.items()} == {
    "rpn": {"conv", "objectness", "deltas"},
    "box_head": {"classes", "deltas"},
  }


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_the_parts_of_the_features_are_the_whole(backbone):
  images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
  variables = jax.jit(backbone.init)(jax.random.key(1), images)

  def apply(x, **part):
    return backbone.apply(variables, x, method="features", **part)

  whole, first = jax.jit(apply)(images), jax.jit(lambda x: apply(x, until="stage3"))(images)
  last = jax.jit(lambda x: apply(x, after="stage3"))(first["stage3"])
  assert [*first, *last] == [*whole]
  for name, value in {**first, **last}.items():
    np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_unknown_stages_are_refused(backbone):
  def features(**part):
    return jax.eval_shape(
      lambda x: backbone.init(jax.random.key(0), x, method="features", **part), jnp.zeros((1, 64, 64, 3))
    )

  with pytest.raises(ValueError, match="'stage5' is not a stage of this network: stage2, stage3, stage4"):
    features(until="stage5")
  with pytest.raises(ValueError, match="no stage follows 'stage4' up to 'stage4'"):
    features(after="stage4")


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_shapes_and_dtypes(backbone):
  model = FasterRCNN(backbone.clone(dtype=jnp.bfloat16), num_classes=5, anchors=9, rpn_channels=16, crop=7)
  images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
  rois = jax.ShapeDtypeStruct((2, 6, 4), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
  proposed = jax.eval_shape(lambda v, x: model.apply(v, x, method="propose"), variables, images)
  recognised = jax.eval_shape(lambda v, *x: model.apply(v, *x, method="recognise"), variables, proposed.features, rois)
  assert proposed.features.dtype == jnp.bfloat16
  assert proposed.features.shape[:3] == (2, 4, 6)
  shapes = [(x.shape, x.dtype) for x in (*proposed[1:], *recognised)]
  assert shapes == [
    ((2, 216), jnp.float32),
    ((2, 216, 4), jnp.float32),
    ((2, 6, 6), jnp.float32),
    ((2, 6, 5, 4), jnp.float32),
  ]


def test_initial_values_and_statistics_are_those_documented():
  model = FasterRCNN(BACKBONES[0], num_classes=20, test_proposals=2)
  images = jnp.zeros((1, 64, 64, 3))
  params = variables_of(model, images)["params"]
  spreads = {
    ("rpn", "conv"): 0.01,
    ("rpn", "objectness"): 0.01,
    ("rpn", "deltas"): 0.01,
    ("box_head", "classes"): 0.01,
    ("box_head", "deltas"): 0.001,
  }
  for (part, layer), spread in spreads.items():
    assert abs(float(params[part][layer]["kernel"].std()) / spread - 1) < 0.1
    assert not params[part][layer]["bias"].any()


def test_regions_are_recognised_independently_and_where_they_are():
  """Logits of a region depend neither on the others nor on their order, and change where the picture does."""
  model = FasterRCNN(BACKBONES[0], num_classes=3, rpn_channels=8, crop=4, test_proposals=2)
  features = jax.random.normal(jax.random.key(2), (1, 6, 6, 120))
  variables = variables_of(model, jnp.zeros((1, 64, 64, 3)))
  recognise = jax.jit(lambda *x: model.apply(variables, *x, method="recognise"))
  rois = jnp.asarray([[[0, 0, 32, 32], [64, 64, 96, 96], [0, 0, 96, 96]]], jnp.float32)
  forward, backward = recognise(features, rois), recognise(features, rois[:, ::-1])
  np.testing.assert_allclose(forward.logits, backward.logits[:, ::-1], rtol=1e-4, atol=1e-6)
  changed = recognise(features.at[:, 4:, 4:].add(1), rois).logits != forward.logits
  assert changed.any(axis=-1).tolist() == [[False, True, True]]


def test_scales_and_biases_of_frozen_norms_are_trained():
  model = FasterRCNN(BACKBONES[0], num_classes=3, rpn_channels=8, crop=4, test_proposals=2)
  images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
  variables = variables_of(model, images)

  def loss(params):
    proposed, recognised = model.apply({**variables, "params": params}, images)
    return jnp.square(proposed.objectness).sum() + jnp.square(recognised.logits).sum()

  gradients = jax.jit(jax.grad(loss))(variables["params"])
  for name in ("stem_norm", "stage2_unit1", "stage4_unit2"):
    norm = gradients[name] if name == "stem_norm" else gradients[name]["expand_norm"]
    assert norm["scale"].any()
    assert norm["bias"].any()
