"""The shuffle and the network against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.models.baselines.mobilenet import MobileNetV1
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.shufflenet import ShuffleNetV1, ShuffleUnit


@pytest.mark.parametrize("seed", range(10))
def test_shuffle_is_the_definition_and_its_inverse(seed):
  rng = np.random.default_rng(seed)
  g, n = rng.integers(1, 9), rng.integers(1, 13)
  x = rng.normal(size=(2, 3, 2, g * n)).astype(np.float32)
  y = np.asarray(channel_shuffle(jnp.asarray(x), int(g)))
  for i in range(g):  # channel j of group i becomes the i-th of the j-th run of g
    for j in range(n):
      np.testing.assert_array_equal(y[..., j * g + i], x[..., i * n + j])
  np.testing.assert_array_equal(channel_shuffle(jnp.asarray(y), int(n)), x)


def test_shuffle_refuses_channels_that_do_not_divide():
  with pytest.raises(ValueError, match="10 channels do not divide into 3 groups"):
    channel_shuffle(jnp.zeros((1, 1, 1, 10)), 3)


@pytest.mark.parametrize("shuffle", ["paper", "release", "none"])
@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_groups_see_each_other_only_through_the_shuffle(groups, shuffle):
  """Zeroing one group of the input changes every group of the branch with a shuffle, and its own group without."""
  features = 4 * groups * groups  # each group of the bottleneck gets a channel of every group
  unit = ShuffleUnit(features, groups, 1, shuffle=shuffle)
  x = jax.random.uniform(jax.random.key(0), (1, 4, 4, features), minval=0.5, maxval=1.0)
  shapes = jax.eval_shape(unit.init, jax.eval_shape(lambda: jax.random.key(1)), x)
  rng = np.random.default_rng(1)

  def positive(path, leaf):
    """Norms that change nothing and positive kernels, so that no ReLU hides a path."""
    if leaf.ndim == 1:
      return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")))
    return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape) / np.prod(leaf.shape[:-1]), leaf.dtype)

  variables = jax.tree_util.tree_map_with_path(positive, shapes)
  apply = jax.jit(unit.apply)
  per_group = features // groups

  before = apply(variables, x)
  for zeroed in range(groups):
    zeros = x.at[..., zeroed * per_group : (zeroed + 1) * per_group].set(0)
    # Everything is positive, so the unit is x + branch(x).
    difference = np.abs(np.asarray((apply(variables, zeros) - zeros) - (before - x)))
    changed = difference.reshape(-1, groups, per_group).min(axis=(0, 2)) > 1e-3
    untouched = difference.reshape(-1, groups, per_group).max(axis=(0, 2)) < 1e-5
    own = np.arange(groups) == zeroed
    assert changed.all() if shuffle != "none" else (changed == own).all() and (untouched == ~own).all()


@pytest.mark.parametrize(
  ("groups", "size", "scale"), [(1, 32, 0.25), (2, 45, 0.3), (3, 32, 0.25), (4, 45, 0.3), (8, 32, 0.25)]
)
def test_logits_are_float32_and_batch_free_in_evaluation(groups, size, scale):
  model = ShuffleNetV1(groups, scale, num_classes=7, repeats=(1, 2, 1), dtype=jnp.bfloat16)
  images = jax.random.normal(jax.random.key(0), (3, size, size, 3))
  shapes = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(1)), images)
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.1, 0.5, x.shape), x.dtype), shapes)
  apply = jax.jit(model.apply)
  logits = apply(variables, images)
  assert logits.shape == (3, 7)
  assert logits.dtype == jnp.float32
  assert bool(jnp.isfinite(logits).all())
  among_others = apply(variables, images.at[1:].multiply(3))
  np.testing.assert_array_equal(logits[0], among_others[0])
  assert not np.array_equal(logits[1], among_others[1])


# Table 1's stages for images of 224x224 at 1x, g=3, and the maps of MobileNet's Table 1 of the same strides.
BACKBONES = {
  "shufflenet": (ShuffleNetV1(groups=3, num_classes=7), {"stage2": (28, 240), "stage3": (14, 480), "stage4": (7, 960)}),
  "mobilenet": (MobileNetV1(num_classes=7), {"stage2": (28, 256), "stage3": (14, 512), "stage4": (7, 1024)}),
}


@pytest.mark.parametrize("network", BACKBONES)
def test_features_are_the_stages_of_table_1(network):
  model, stages = BACKBONES[network]
  images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), images)
  maps = jax.eval_shape(lambda variables, images: model.apply(variables, images, method="features"), variables, images)
  assert {name: x.shape for name, x in maps.items()} == {
    name: (2, side, side, channels) for name, (side, channels) in stages.items()
  }


@pytest.mark.parametrize("model", [ShuffleNetV1(8, 0.25, num_classes=7, se=True), MobileNetV1(0.25, num_classes=7)])
def test_the_classifier_over_the_features_is_the_network(model):
  images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
  variables = jax.jit(model.init)(jax.random.key(1), images)
  maps = jax.jit(functools.partial(model.apply, method="features"))(variables, images)
  logits = jax.jit(functools.partial(model.apply, method="classify"))(variables, maps)
  assert logits.shape == (2, 7)
  whole = jax.jit(model.apply)(variables, images)
  np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-6)  # compiled apart, sums are rounded differently


def test_a_network_without_its_classifier_can_be_initialised():
  """The backbone of another task has the same parameters, and no `classifier`."""
  model, images = ShuffleNetV1(3, 0.25, repeats=(1, 1, 1)), jnp.zeros((1, 32, 32, 3))
  whole, backbone = (
    jax.jit(functools.partial(model.init, method=method))(jax.random.key(1), images) for method in (None, "features")
  )
  assert whole["params"].pop("classifier")
  jax.tree.map(np.testing.assert_array_equal, whole, backbone)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_three_channels_are_refused(channels):
  with pytest.raises(ValueError, match=rf"shape \(2, 32, 32, {channels}\) do not have three channels"):
    ShuffleNetV1().init(jax.random.key(0), jnp.zeros((2, 32, 32, channels)))


def test_stride_2_keeps_the_pooled_input_first():
  unit = ShuffleUnit(24, 1, 2)
  x = jax.random.uniform(jax.random.key(0), (1, 5, 4, 6))
  y, _ = unit.init_with_output(jax.random.key(1), x)
  assert y.shape == (1, 3, 2, 24)
  padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
  np.testing.assert_allclose(y[0, 1, 1, :6], padded[0, 2:5, 2:5].mean((0, 1)), rtol=1e-5)


def test_unit_refuses_shapes_that_do_not_fit():
  with pytest.raises(ValueError, match="input has 8, features=16"):
    ShuffleUnit(16, 1, 1).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
  with pytest.raises(ValueError, match="features=8 must exceed 8"):
    ShuffleUnit(8, 1, 2).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
  with pytest.raises(ValueError, match="3 groups do not divide 8 input and 6 output channels"):
    ShuffleUnit(24, 3, 2).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
  with pytest.raises(ValueError, match="stride=3 is neither 1 nor 2"):
    ShuffleUnit(24, 3, 3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 24)))
