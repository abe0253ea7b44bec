"""Files of every format, for every network: run by their own runtimes, they give the network's logits."""

import dataclasses
import io
import zipfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from shufflenet_jax.deployment import algebra, formats, runtimes, trace
from shufflenet_jax.deployment.network import Network
from shufflenet_jax.models.baselines.alexnet import local_response_norm
from shufflenet_jax.models.layers import conv
from tests.deployment import networks

# Between them they have every kind of layer but AlexNet's.
NETWORKS = [
  "scale=0.25,groups=4,se=True,shuffle=release,shortcut_first=False,classifier_bias=False",
  "network=mobilenet_v1,scale=0.25",
  "network=squeezenet",
]
OTHERS = [
  "scale=0.25,groups=3,se=True",
  "scale=0.25,groups=1",
  "scale=0.5,groups=2,shuffle=none",
  "scale=0.5,groups=3",
  "scale=1.0,groups=8",
  "network=googlenet",
  "network=vgg_like,mflops=13",
  "network=resnet,mflops=13",
  "network=xception_like,mflops=13",
  "network=resnext,mflops=13",
  "network=alexnet",
  "network=vgg16",
]


def check_all_formats(network):
  output, size = network.layers(), network.description.height
  expected_of = jax.jit(network.function)
  for suffix in runtimes.SUFFIXES:
    runtime = runtimes.loaded(suffix, formats.encode(network, output, suffix, None))
    for count in (1, 3):  # by the same file
      images = networks.pictures(count, size)
      expected = np.asarray(expected_of(images))
      difference = np.abs(runtime(images) - expected).max() / np.abs(expected).max()
      assert difference <= 5e-6, (suffix, count, difference)


@pytest.mark.parametrize("arguments", NETWORKS)
def test_logits(arguments):
  check_all_formats(networks.make(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", NETWORKS + OTHERS)
def test_logits_at_full_size(arguments):
  check_all_formats(networks.make(arguments, 224))


def test_dense_convolutions_give_the_same_logits():
  network = networks.make("scale=0.25,groups=3")
  images = networks.pictures(2)
  expected = np.asarray(jax.jit(network.function)(images))
  for suffix in (".tflite", ".onnx"):
    content = formats.encode(network, algebra.without_groups(network.layers()), suffix, None)
    np.testing.assert_allclose(runtimes.loaded(suffix, content)(images), expected, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("suffix", [".onnx", ".stablehlo"])
def test_a_file_for_one_batch_size_takes_no_other(suffix):
  network = networks.make("scale=0.25,groups=3,stem=3")
  runtime = runtimes.loaded(suffix, formats.encode(network, network.layers(), suffix, 2))
  assert runtime(networks.pictures(2)).shape == (2, 7)
  with pytest.raises(Exception, match=r"2|dimension|shape"):
    runtime(networks.pictures(3))


def test_a_tflite_file_for_one_batch_size_has_it_in_every_shape():  # LiteRT itself would change it
  network = networks.make("scale=0.25,groups=3")
  model = schema.ModelT.InitFromPackedBuf(formats.encode(network, network.layers(), ".tflite", 2), 0)
  computed = [tensor for tensor in model.subgraphs[0].tensors if tensor.name]
  assert len(computed) > 100
  assert all(tensor.shapeSignature is None and tensor.shape[0] % 2 == 0 for tensor in computed)


@pytest.mark.parametrize("suffix", runtimes.SUFFIXES)
def test_a_file_describes_itself(suffix):
  network = networks.make("scale=0.25,groups=3", classes=("n01440764 tench, Tinca tinca", "größer", "two\nlines"))
  described = runtimes.loaded(suffix, formats.encode(network, network.layers(), suffix, None)).description
  assert described.classes[:2] == network.description.classes[:2]
  assert dataclasses.replace(described, classes=()) == dataclasses.replace(network.description, classes=())


def test_labels_are_in_the_tflite_file_where_other_programs_look():
  network = networks.make("scale=0.25,groups=3")
  content = formats.encode(network, network.layers(), ".tflite", None)
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    assert archive.read("labels.txt").decode().splitlines() == list(networks.CLASSES)


KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 8)).astype(np.float32)
DENSE = np.random.default_rng(2).normal(size=(4 * 5 * 8, 3)).astype(np.float32)


def convolved(images):
  return conv(images.astype(jnp.float32) / 255, KERNEL, 2)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize(
  "function",
  [
    lambda x: convolved(x).reshape(x.shape[0], -1) @ DENSE,  # (n, h, w, c) -> (n, h*w*c): in which order?
    lambda x: local_response_norm(convolved(x)).mean((1, 2)),
    lambda x: nn.max_pool(convolved(x), (3, 3), (2, 2), ((1, 1), (1, 1))).mean((1, 2)),  # padding is no zero
    lambda x: nn.relu(nn.max_pool(convolved(x), (2, 2), (2, 2))).mean((1, 2)),
    lambda x: (nn.relu(convolved(x)) * jnp.full((1, 1, 1, 1), 2.0) + jnp.full((1, 1, 1, 1), 3.0)).mean((1, 2)),
    lambda x: (jnp.full((1, 1, 1, 1), 1.0) - nn.relu(convolved(x))).mean((1, 2)),
  ],
)
def test_layers_that_few_networks_have(suffix, function):
  described = networks.make("scale=0.25,groups=3").description
  images = np.random.default_rng(3).integers(0, 256, (2, 8, 10, 3), np.uint8)
  runtime = runtimes.loaded(
    suffix, formats.encode(Network(function, described), trace.layers(function, 8, 10), suffix, None)
  )
  np.testing.assert_allclose(runtime(images), function(jnp.asarray(images)), rtol=1e-5, atol=1e-5)
