"""Every lowering against the reference, and the norm of the reference against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shufflenet_jax.models.batch_norm import BatchNorm, group_moments, normalized_conv1x1
from shufflenet_jax.models.lowering import (
  FASTEST,
  LOWERINGS,
  affine_relu_depthwise3x3,
  avg_pool3x3,
  depthwise_conv3x3,
  group_conv1x1,
  max_pool3x3,
  stem_conv3x3,
)
from shufflenet_jax.models.shufflenet import ShuffleNetV1, ShuffleUnit

# Between them: every g, shuffle, concatenation order, squeeze-and-excitation, stages narrower and wider than 80.
NETWORKS = {
  "g1": {"groups": 1, "scale": 0.25},
  "g2_none_branch_first": {"groups": 2, "scale": 0.25, "shuffle": "none", "shortcut_first": False},
  "g3": {"groups": 3, "scale": 0.5},
  "g4_se": {"groups": 4, "scale": 0.25, "se": True},
  "g8_release": {"groups": 8, "scale": 0.25, "shuffle": "release"},
}


def perturbed(variables):
  """Norms away from the identity, some scales negative."""
  rng = np.random.default_rng(0)

  def move(path, x):
    if path[-1].key == "var":
      return jnp.asarray(rng.uniform(0.5, 2, x.shape), x.dtype)
    if x.ndim == 1 and path[0].key != "classifier":
      return jnp.asarray(rng.normal(size=x.shape) + np.where(path[-1].key == "scale", 0.5, 0), x.dtype)
    return x

  return {kind: jax.tree_util.tree_map_with_path(move, tree) for kind, tree in variables.items()}


def forward_and_back(model, variables, images):
  def loss(params):
    variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
    logits, updated = model.apply(variables_now, images, train=True, mutable=["batch_stats"])
    return (logits * jnp.linspace(-1, 1, 7)).sum(), (logits, updated)

  gradients, (logits, updated) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
  return jax.tree.map(np.asarray, (logits, updated, gradients))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_lowering_is_the_reference(network):
  """Logits, running statistics and gradients; "auto" is one of the others, which one a test below sees."""
  reference = ShuffleNetV1(num_classes=7, repeats=(2, 1, 1), lowering="reference", **NETWORKS[network])
  images = jax.random.normal(jax.random.key(0), (8, 36, 36, 3))
  variables = perturbed(jax.jit(reference.init)(jax.random.key(1), images))
  inference = np.asarray(jax.jit(reference.apply)(variables, images))
  expected = forward_and_back(reference, variables, images)
  largest = max(np.abs(g).max() for g in jax.tree.leaves(expected[2]))
  for lowering in ("dense", "split"):
    model = reference.clone(lowering=lowering)
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, inference, atol=1e-5 * np.abs(inference).max(), err_msg=lowering)
    logits, statistics, gradients = forward_and_back(model, variables, images)
    np.testing.assert_allclose(logits, expected[0], atol=1e-4 * np.abs(expected[0]).max(), err_msg=lowering)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), statistics, expected[1])
    # Against the largest: a depthwise norm's bias has no effect in training, its gradient is rounding only. CPUs round
    # otherwise (4e-4 was seen on one); statistics left out of the derivative show as 0.5 and more.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3 * largest), gradients, expected[2])


def test_parameters_and_their_initial_values_do_not_depend_on_the_lowering():
  images = jnp.zeros((1, 32, 32, 3))
  trees = [
    ShuffleNetV1(8, 0.25, repeats=(1, 1, 1), lowering=name).init(jax.random.key(3), images) for name in LOWERINGS
  ]
  for tree in trees[1:]:
    jax.tree.map(np.testing.assert_array_equal, trees[0], tree)


def test_auto_is_decided_by_the_platform_compiled_for():
  """Lowered on this machine for others: the grouped convolutions are there exactly where the rule wants them."""
  x = jax.ShapeDtypeStruct((1, 8, 8, 240), jnp.float32)
  kernel = jax.ShapeDtypeStruct((1, 1, 80, 60), jnp.float32)
  function = jax.jit(lambda x, kernel: group_conv1x1(x, kernel, 3, 3))

  def text(platform):
    return function.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

  # Inside a shard_map the mesh says the platform: only its formulation is traced.
  mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec()
  traced = str(jax.make_jaxpr(jax.shard_map(function, mesh=mesh, in_specs=(spec, spec), out_specs=spec))(x, kernel))
  assert traced.count("dot_general") == 3 and "conv_general_dilated" not in traced and "cond" not in traced

  assert FASTEST == {"tpu": "dense", "cpu": "split", "cuda": "dense", "rocm": "dense"}
  for platform in ("tpu", "cuda"):
    assert "feature_group_count = 1 " in text(platform) and "feature_group_count = 3 " not in text(platform)
  assert "convolution" not in text("cpu") and text("cpu").count("dot_general") == 3


@pytest.mark.parametrize("shape", [(6, 8, 11, 5), (8, 7, 6, 5)])
@pytest.mark.parametrize(
  "window", ["depthwise 1", "depthwise 2", "behind relu 1", "behind relu 2", "average", "max", "stem"]
)
def test_windows_are_the_references(window, shape):
  """Values and gradients, even and odd sides; small whole numbers, so that windows have several largest values."""
  x = jax.random.randint(jax.random.key(0), shape, -2, 3).astype(jnp.float32)
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 5))
  a, b = jnp.array([1.0, -2, 0.5, 3, -1]), jnp.array([0.25, 0.25, -0.25, 1.25, -1.25])

  def values_and_gradients(lowering):
    functions = {
      "depthwise 1": lambda x, kernel: depthwise_conv3x3(x, kernel, 1, lowering),
      "depthwise 2": lambda x, kernel: depthwise_conv3x3(x, kernel, 2, lowering),
      "behind relu 1": lambda x, kernel, a, b: affine_relu_depthwise3x3(x, a, b, kernel, 1, lowering),
      "behind relu 2": lambda x, kernel, a, b: affine_relu_depthwise3x3(x, a, b, kernel, 2, lowering),
      "average": lambda x, kernel: avg_pool3x3(x, lowering),
      "max": lambda x, kernel: max_pool3x3(x, lowering),
      "stem": lambda x, kernel: stem_conv3x3(x, kernel * kernel[..., ::-1].swapaxes(2, 3), lowering),  # (3, 3, 5, 5)
    }
    y, back = jax.vjp(functions[window], x, kernel, *([a, b] if "relu" in window else []))
    return y, back(jax.random.normal(jax.random.key(2), y.shape))

  expected = values_and_gradients("reference")
  for lowering in ("dense", "split"):
    found = jax.jit(values_and_gradients, static_argnums=0)(lowering)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_other_strides_are_refused(lowering):
  """The gradient of "split" is of strides 1 and 2 only."""
  with pytest.raises(ValueError, match="stride=3 is neither 1 nor 2"):
    ShuffleUnit(24, 3, stride=3, lowering=lowering).init(jax.random.key(0), jnp.zeros((1, 8, 8, 24)))
  with pytest.raises(ValueError, match="stride=3 is neither 1 nor 2"):
    depthwise_conv3x3(jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4)), 3, lowering)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_a_stem_kernel_of_another_shape_is_refused(lowering):
  """As a product of patches, one of as many elements would do."""
  for shape in ((3, 3, 1, 24), (1, 1, 27, 8), (5, 5, 3, 8)):
    with pytest.raises(ValueError, match="is not .3, 3, 3, f."):
      stem_conv3x3(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape), lowering)
  assert stem_conv3x3(jnp.zeros((0, 8, 8, 3)), jnp.zeros((3, 3, 3, 8)), lowering).shape == (0, 4, 4, 8)


def test_only_cpus_compile_pieces_apart():
  """And there each unit's output is written, not computed again in every later unit."""
  model = ShuffleNetV1(num_classes=7, scale=0.25, repeats=(2, 1, 1))
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)

  def text(platform):
    return jax.jit(model.apply).trace(variables, images).lower(lowering_platforms=(platform,)).as_text()

  assert "inlineable" not in text("tpu")
  assert text("cpu").count("call @optimization_barrier") == 4  # once a unit


def test_narrow_depthwise_has_depthwise_gradients():
  """The diagonal kernel is an inner matter: nothing of its size comes out of differentiation."""
  x, kernel = jnp.ones((1, 6, 6, 20)), jnp.ones((3, 3, 1, 20))
  loss = lambda x, kernel: depthwise_conv3x3(x, kernel, 2, "dense").sum()  # noqa: E731
  jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=1))(x, kernel)
  assert not [v for eqn in jaxpr.eqns for v in eqn.outvars if v.aval.shape == (3, 3, 20, 20)][1:]  # the kernel alone


@pytest.mark.parametrize("lowering", ["dense", "split"])
@pytest.mark.parametrize("groups", [1, 3, 4])
def test_group_moments_are_numpys(groups, lowering):
  x = np.random.default_rng(0).normal(2, 3, (5, 4, 3, 12)).astype(np.float32)
  mean, covariance = group_moments(jnp.asarray(x), groups, lowering)
  np.testing.assert_allclose(mean.ravel(), x.mean((0, 1, 2)), rtol=1e-5)
  for group, found in enumerate(covariance):
    own = x.reshape(-1, groups, 12 // groups)[:, group]
    np.testing.assert_allclose(found, np.cov(own, rowvar=False, bias=True), rtol=1e-3, atol=1e-4)


def test_channels_without_variance_do_not_give_nan():
  """The covariance of a constant channel comes out below zero by rounding."""
  x = jnp.broadcast_to(10 + 0.1 * jnp.arange(12), (8, 14, 14, 12))
  covariance = jax.jit(group_moments, static_argnums=(1, 2))(x, 3, "dense")[1]
  assert min(np.diag(block).min() for block in covariance) < -1e-4  # so this is such a case

  class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
      norms = BatchNorm(12, True, name="before"), BatchNorm(24, True, name="after")
      return normalized_conv1x1(x, jnp.ones((1, 1, 4, 24)), 3, *norms, "dense")

  variables = Both().init(jax.random.key(0), x)
  y, updated = jax.jit(lambda v: Both().apply(v, x, mutable=["batch_stats"]))(variables)
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((y, updated)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm_is_flaxs(dtype):
  x = jax.random.normal(jax.random.key(0), (4, 3, 2, 5), dtype) * 3 + 1
  variables = {
    "params": {"scale": jnp.array([1.0, -2, 0.5, 0, 3]), "bias": jnp.arange(5.0)},
    "batch_stats": {"mean": jnp.full(5, 0.5), "var": jnp.full(5, 4.0)},
  }
  for train in (False, True):
    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype)
    expected, updated = theirs.apply(variables, x, mutable=["batch_stats"])
    found, own = BatchNorm(5, train).apply(variables, x, mutable=["batch_stats"])
    assert found.dtype == dtype
    rtol = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.float32(found), np.float32(expected), rtol=rtol, atol=rtol)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), own, updated)


def test_groups_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="3 groups do not divide 8 input and 6 output channels"):
    group_conv1x1(jnp.zeros((1, 2, 2, 8)), jnp.zeros((1, 1, 2, 6)), 3)


def test_an_unknown_lowering_is_refused():
  with pytest.raises(ValueError, match="lowering='quick' is not one of auto, reference, dense, split"):
    depthwise_conv3x3(jnp.zeros((1, 4, 4, 8)), jnp.zeros((3, 3, 1, 8)), 1, "quick")
