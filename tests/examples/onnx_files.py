"""Makes ONNX files like the exporter's, of a network with a known answer."""

import json

import numpy as np

SIDE = 32  # of the pictures that the network reads, in pixels
CLASSES = ("red above", "green above", "blue above", "red below", "green below", "blue below")
INPUT = {"height": SIDE, "width": SIDE, "resize": 37, "antialias": True}
KEY = "shufflenet_jax"


def weights(scale=10.0) -> np.ndarray:
  """(SIDE * SIDE * 3, 6): the logits are the mean of each colour in the upper and in the lower half, times `scale`."""
  result = np.zeros((2, SIDE // 2, SIDE, 3, 2, 3), np.float32)  # half h w c, half c
  for half in range(2):
    for colour in range(3):
      result[half, :, :, colour, half, colour] = scale / 255 / (SIDE // 2 * SIDE)
  return result.reshape(SIDE * SIDE * 3, 6)  # 2 h w c, 2 c -> 2hwc 2c


def metadata(**changes) -> dict[str, str]:
  """The metadata of such a file."""
  network = "a network with a known answer"
  values = {"format": 1, "network": network, "classes": CLASSES, "input": INPUT, "step": 0, "config": {}} | changes
  return {KEY: json.dumps(values)}


def network(scale=10.0, last_layer="MatMul", batch="batch", metadata_props=None) -> bytes:
  """An ONNX file; `last_layer` is the name of an operation, which onnxruntime need not know."""
  import onnx
  from onnx import helper

  images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, [batch, SIDE, SIDE, 3])
  logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, len(CLASSES)])
  nodes = [
    helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT),
    helper.make_node("Flatten", ["floats"], ["rows"], axis=1),  # n h w c -> n hwc
    helper.make_node(last_layer, ["rows", "weights"], ["logits"]),
  ]
  tensors = [onnx.numpy_helper.from_array(weights(scale), "weights")]
  graph = helper.make_graph(nodes, "network", [images], [logits], tensors)
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
  helper.set_model_props(model, {"another": "entry"} | (metadata() if metadata_props is None else metadata_props))
  return model.SerializeToString()
