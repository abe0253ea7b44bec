"""The networks that the paper compares with: widths, complexity, a forward pass at 224, and training."""

import itertools

import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imagenet, quickstart
from shufflenet_jax import tasks
from shufflenet_jax.counting.multiply_adds import count_network
from shufflenet_jax.data import sources
from shufflenet_jax.data.stream import training
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.models.baselines.other_units import solve_width, stage_widths
from shufflenet_jax.paper import complexity_tables
from shufflenet_jax.tasks.classification import Classification
from shufflenet_jax.tasks.forward import Forward
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import compile_train_step, init_state

VARIANTS = [
  "scale=0.25,groups=3,se=True",
  "scale=0.25,groups=8,shuffle=none",
  "scale=0.25,groups=4,shuffle=release,shortcut_first=False,classifier_bias=False",
  "network=mobilenet_v1,scale=0.25",
  "network=vgg_like,mflops=13",
  "network=resnet,mflops=13",
  "network=xception_like,mflops=13",
  "network=resnext,mflops=13",
  "network=googlenet",
  "network=squeezenet",
]
HEAVY = ["network=vgg16", "network=alexnet"]


@pytest.fixture
def compiled_sooner(arguments):
  """Compiles small networks with few optimisations, as ordinary tests do: compiling takes them longer than running."""
  jax.config.update("jax_disable_most_optimizations", arguments not in HEAVY)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VARIANTS + HEAVY)
def test_loss_falls(arguments, data_dir, compiled_sooner):
  config = quickstart.get_config(arguments)
  config.data.data_dir = data_dir
  if "alexnet" in arguments:
    config.data.image_size = 64  # its strides leave nothing of 32
  split = sources.open_split(config.data, "train", 10)
  # So few pictures that their order is no matter: for each of three seeds the loss falls by more than half.
  batch = next(training.train_batches(split, config.data, batch_size=8, num_classes=10, seed=0, start_step=0))
  on = mesh.data_mesh(jax.devices()[:1])
  batch = mesh.split_batch({k: batch[k] for k in ("image", "label")}, on)
  # Networks without batch norm need a lower learning rate, and SqueezeNet the lowest.
  without_batch_norm = config.model.network in imagenet.WITHOUT_BATCH_NORM
  rate = 0.005 if config.model.network == "squeezenet" else 0.01 if without_batch_norm else 0.02
  config.optimizer.update({"warmup_steps": 0, "learning_rate": rate})
  optimizer, schedule = sgd(config.optimizer, 1000)
  model = build.network(config.model)
  state = init_state(model, optimizer, config.data.image_size, 0)
  assert {x.dtype for x in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype(jnp.float32)}
  task = Classification(Forward(model, mean=(127.5,) * 3, std=(127.5,) * 3))
  step_fn = compile_train_step(on, task=task, optimizer=optimizer, schedule=schedule)
  losses = []
  for _ in range(30):
    state, figures = step_fn(state, batch)
    losses.append(float(figures["loss"]))
  assert np.mean(losses[-3:]) < 0.7 * losses[0], losses


def products(jaxpr):
  """Every convolution and matrix product of a jaxpr, including those in nested functions."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
      yield eqn
    for inner in jax.extend.core.jaxprs_in_params(eqn.params):
      yield from products(inner)


@pytest.mark.parametrize("arguments", VARIANTS + HEAVY)
def test_convolutions_and_products_run_in_bfloat16(arguments):
  model = build.network(imagenet.get_config(arguments).model)
  if hasattr(model, "lowering"):
    model = model.clone(lowering="reference")  # the others compute one convolution as several products, or add some
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), image)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
  eqns = list(products(jax.make_jaxpr(model.apply)(variables, image).jaxpr))
  kernels = [x for x in jax.tree.leaves(variables["params"]) if x.ndim > 1]
  assert len(eqns) == len(kernels)
  assert {v.aval.dtype for eqn in eqns for v in (*eqn.invars, *eqn.outvars)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VARIANTS + HEAVY)
def test_forward_at_224_in_bfloat16(arguments, compiled_sooner):
  model = build.network(imagenet.get_config(arguments).model)
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), image)
  filled = jax.tree.map(lambda x: jnp.full(x.shape, 0.01), variables)
  logits = jax.jit(model.apply)(filled, jnp.ones((1, 224, 224, 3)))
  assert logits.shape == (1, 1000)
  assert logits.dtype == jnp.float32
  assert bool(jnp.isfinite(logits).all())


def test_dropout_differs_between_steps_and_is_off_in_evaluation():
  model = build.network(imagenet.get_config("network=squeezenet").model.to_dict() | {"num_classes": 5})
  images = jnp.ones((2, 32, 32, 3))
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), images)
  variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
  train = jax.jit(lambda key: model.apply(variables, images, train=True, rngs={"dropout": key}))
  assert not np.array_equal(train(jax.random.key(1)), train(jax.random.key(2)))
  evaluate = jax.jit(model.apply)
  np.testing.assert_array_equal(*evaluate(variables, images))


@pytest.mark.slow
def test_every_row_of_the_papers_tables_is_within_3_percent_or_has_a_note():
  tables = list(complexity_tables.count_tables())
  assert {row["table"] for row in tables} == {1, 2, 4, 5, 6, 8}
  for row in tables:
    assert abs(row["difference_percent"]) <= 3 or len(row["note"]) > 20, row
  notes = {(row["table"], row["network"]): row["note"] for row in tables if row["note"]}
  for scale, narrower_stem in ((0.5, "35.8"), (0.25, "12.0")):
    note = f"a stem of 16, as 12 channels do not divide into 8 groups; a stem of 8 gives {narrower_stem}"
    assert notes[2, f"ShuffleNet {scale:g}x g=8"] == note
  assert notes.keys() == {
    (2, "ShuffleNet 1x g=4"),
    (2, "ShuffleNet 0.5x g=8"),
    (2, "ShuffleNet 0.25x g=2"),
    (2, "ShuffleNet 0.25x g=4"),
    (2, "ShuffleNet 0.25x g=8"),
    (4, "ShuffleNet 0.25x g=8"),
    (5, "ShuffleNet 0.5x shallow g=3"),
    (6, "GoogLeNet"),
  }


@pytest.mark.parametrize(
  ("arguments", "paper_mflops", "counted"),
  [
    ("network=mobilenet_v1,scale=1.0", 569, 568.74),
    ("network=mobilenet_v1,scale=0.25", 41, 41.03),
    ("network=vgg16", 15300, 15470.26),
    ("network=alexnet", 720, 724.41),
    ("network=squeezenet", 833, 832.67),
  ],
)
def test_published_networks(arguments, paper_mflops, counted):
  multiply_adds = count_network(build.network(imagenet.get_config(arguments).model), 224).multiply_adds / 1e6
  assert round(multiply_adds, 2) == counted
  assert multiply_adds == pytest.approx(paper_mflops, rel=0.03)


@pytest.mark.parametrize(
  ("name", "parameters"),
  # VGG-16 and SqueezeNet as in torchvision; AlexNet with the two groups of its paper.
  [("vgg16", 138_357_544), ("squeezenet", 1_248_424), ("alexnet", 60_965_224)],
)
def test_published_parameter_counts(name, parameters):
  assert count_network(build.network(imagenet.get_config(f"network={name}").model), 224).parameters == parameters


def test_googlenet_counts_what_the_layers_of_its_table_do():
  """Its paper rounds to 1.5 billion; torchvision is no reference, as it has 3x3 in place of 5x5 convolutions."""
  counted = count_network(build.network(imagenet.get_config("network=googlenet").model), 224)
  assert (round(counted.multiply_adds / 1e6, 2), counted.parameters) == (1582.67, 7_005_832)


def test_table_4_widths_at_38m_are_near_the_papers():
  """The paper gives Stage 4 averages of 50 (VGG-like) and 192 (ResNet, ResNeXt) channels."""
  for name, stage4 in (("vgg_like", 50), ("resnet", 192), ("resnext", 192)):
    model = build.network(imagenet.get_config(f"network={name},mflops=38").model)
    assert stage_widths(model.stage4)[2] == pytest.approx(stage4, rel=0.02)


def test_solve_width_is_the_nearest_quarter():
  widths = np.arange(4 * 8, 4 * 8192 + 1) / 4
  for budget, exponent in itertools.product((3e4, 1e5, 7.7e6, 5e8), (1.8, 2.0, 2.2)):
    nearest = widths[np.abs(widths**exponent * 50 - budget).argmin()]
    assert solve_width(lambda w, e=exponent: w**e * 50, budget) == nearest


@pytest.mark.parametrize(("unit", "mflops"), [("resnet", 2000), ("vgg_like", 5)])
def test_table_4_meets_budgets_far_from_the_papers(unit, mflops):
  model = build.network(imagenet.get_config(f"network={unit},mflops={mflops}").model)
  assert count_network(model, 224).without_classifier == pytest.approx(mflops * 1e6, rel=0.03)


def test_a_budget_that_no_width_meets_is_refused():
  with pytest.raises(UserError, match="mflops=5.0 cannot be met by xception_like within 3 %: .* widths has 5.7$"):
    build.network(imagenet.get_config("network=xception_like,mflops=5").model)


@pytest.mark.parametrize(
  ("arguments", "image_size", "message"),
  [
    ("groups=8,scale=0.01", 224, "config.model: a unit of stride 2 concatenates its input: features=32 must exceed 32"),
    ("groups=8,scale=0.01", 32, "config.model: a unit of stride 2 concatenates its input: features=32 must exceed 32"),
    ("network=alexnet", 32, "config.data.image_size=32 is too small for alexnet; it needs 63 or more"),
    ("network=alexnet", 62, "config.data.image_size=62 is too small for alexnet; it needs 63 or more"),
  ],
)
def test_networks_that_do_not_fit_their_images_are_refused(arguments, image_size, message):
  config = imagenet.get_config(arguments)
  config.data.image_size = image_size
  with pytest.raises(UserError) as raised:
    tasks.network_for_images(config)
  assert str(raised.value) == message


class WithoutChannels(nn.Module):
  """As a width multiplier makes a network that rounds its channels down to 0."""

  num_classes: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(self.num_classes)(nn.Conv(0, (3, 3))(images).mean((1, 2)))


def test_a_network_without_channels_is_refused(monkeypatch):
  config = imagenet.get_config("network=squeezenet")
  monkeypatch.setitem(build.NETWORKS, "squeezenet", WithoutChannels)
  with pytest.raises(UserError, match="^config.model: a layer has no channels; choose a larger scale$"):
    tasks.network_for_images(config)


@pytest.mark.parametrize("arguments", [*VARIANTS, "network=vgg16"])
def test_every_other_network_takes_images_of_32(arguments):
  config = imagenet.get_config(arguments)
  config.data.image_size = 32
  tasks.network_for_images(config)
