"""What the written graphs look like: what runtimes refuse, or run slowly, is not in them.

The numbers in comments are of public reports by people who deployed such networks.
"""

import collections

import jax
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from shufflenet_jax.deployment import algebra, formats, layers
from shufflenet_jax.interop.torch_checkpoint import imagenet_class_names
from tests.deployment import networks

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


@pytest.fixture(scope="module")
def network():
  """0.5x g=3, as the authors have released it."""
  return networks.make("scale=0.5,groups=3,classifier_bias=False", 224, imagenet_class_names())


@pytest.fixture(scope="module")
def output(network):
  return network.layers()


@pytest.fixture(scope="module")
def tflite(network, output):
  return formats.encode(network, output, ".tflite", None)


@pytest.fixture(scope="module")
def onnx_graph(network, output):
  content = formats.encode(network, output, ".onnx", None)
  assert len(content) <= 2_900_000
  return onnx.load_from_string(content).graph


def tflite_model(content: bytes):
  return schema.ModelT.InitFromPackedBuf(content, 0)


def operators(model) -> collections.Counter:
  codes = [NAMES[code.builtinCode] for code in model.operatorCodes]
  return collections.Counter(codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators)


def test_layers(output):
  kinds = collections.Counter(type(layer).__name__ for layer in layers.in_order(output))
  assert kinds == {
    "Input": 1, "Float": 1, "Affine": 1, "Conv": 49, "MaxPool": 1, "AveragePool": 3, "Concat": 3, "Add": 13,
    "Shuffle": 16, "Mean": 1, "Dense": 1,
  }  # fmt: skip


def test_tflite_operators(tflite):
  assert len(tflite) <= 2_900_000
  assert operators(tflite_model(tflite)) == {
    "CAST": 1, "ADD": 14, "PAD": 8, "CONV_2D": 33, "DEPTHWISE_CONV_2D": 16, "RESHAPE": 32, "TRANSPOSE": 16,
    "MAX_POOL_2D": 1, "AVERAGE_POOL_2D": 3, "CONCATENATION": 3, "MEAN": 1, "FULLY_CONNECTED": 1,
  }  # fmt: skip  # neither SPLIT (tensorflow 61321), SHAPE nor STRIDED_SLICE (tflite-micro 159)


def test_tflite_has_no_tensor_above_rank_4(tflite):  # tensorflow/models 7528: "Transpose only 1D-4D"
  assert max(len(tensor.shape) for tensor in tflite_model(tflite).subgraphs[0].tensors) == 4


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES])
def test_tflite_runs_with_and_without_a_delegate(network, tflite, resolver):  # tensorflow 40044: grouped convolutions
  interpreter = Interpreter(model_content=tflite, experimental_op_resolver_type=resolver)
  images = networks.pictures(1, 224)
  logits = interpreter.get_signature_runner()(images=images)["logits"]
  expected = np.asarray(jax.jit(network.function)(images))
  np.testing.assert_allclose(logits, expected, atol=5e-6 * np.abs(expected).max())


def test_tflite_without_grouped_convolutions(network, output):  # TensorRT 3273 and runtimes before 2021
  content = formats.encode(network, algebra.without_groups(output), ".tflite", None)
  model = tflite_model(content)
  tensors = model.subgraphs[0].tensors
  for operator in model.subgraphs[0].operators:
    if NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode] == "CONV_2D":
      x, kernel = (tensors[i] for i in operator.inputs[:2])
      assert kernel.shape[3] == x.shape[3]
  assert "TRANSPOSE" not in operators(model)


def test_onnx_nodes(onnx_graph):
  assert collections.Counter(node.op_type for node in onnx_graph.node) == {
    "Cast": 1, "Transpose": 17, "Add": 14, "Conv": 49, "Relu": 33, "MaxPool": 1, "AveragePool": 3, "Concat": 3,
    "Reshape": 32, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1, "Identity": 1,
  }  # fmt: skip


def test_onnx_has_no_tensor_above_rank_4(onnx_graph):  # coremltools 1723
  inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(onnx_graph))
  shapes = [value.type.tensor_type.shape.dim for value in inferred.graph.value_info]
  assert len(shapes) == len(onnx_graph.node) - 1 and max(map(len, shapes)) == 4


def test_onnx_reshapes_to_constants(onnx_graph):  # onnx/models 77, onnx-tensorrt 264
  constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx_graph.initializer}
  targets = [constants[node.input[1]] for node in onnx_graph.node if node.op_type == "Reshape"]
  assert all(target.ndim == 1 and target.dtype == np.int64 and (target == -1).sum() == 1 for target in targets)


def test_onnx_batch_has_a_name(onnx_graph):  # pytorch 48093: a batch size that is built in
  dims = [value.type.tensor_type.shape.dim[0].dim_param for value in (*onnx_graph.input, *onnx_graph.output)]
  assert dims == ["batch", "batch"]
