"""The flatbuffer of a LiteRT (TensorFlow Lite) model: tensors and operators, with the schema that LiteRT ships."""

from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
  np.dtype(np.float32): schema.TensorType.FLOAT32,
  np.dtype(np.uint8): schema.TensorType.UINT8,
  np.dtype(np.int8): schema.TensorType.INT8,
  np.dtype(np.int32): schema.TensorType.INT32,
}
_SCHEMA_VERSION, _IDENTIFIER = 3, b"TFL3"


class Graph:
  """The tensors and operators of a model that is being written. A tensor is known by its number."""

  def __init__(self, batch: int | None, versions: Mapping[str, int]):
    """
    Args:
      batch: the only batch size that the model accepts; None for any.
      versions: of operators that need more than their first. A runtime refuses a version that it does not know. With a
        version that is too low here, an old runtime would accept the operator, and compute wrong results.
    """
    self._batch, self._versions = batch, versions
    self.tensors, self.operators = [], []
    self._buffers = [schema.BufferT()]  # the first is for tensors without data
    self._codes: dict[tuple[str, int], int] = {}

  def tensor(self, name: str, shape: tuple[int, ...], dtype=np.float32, quantization=None, rows: int = 1) -> int:
    """Adds a tensor that an operator computes. Its first dimension is the batch times `rows`, `shape` is the rest."""
    signature = None if self._batch else [-1, *shape]
    return self._add(name, dtype, [(self._batch or 1) * rows, *shape], 0, quantization, signature)

  def derived(self, shape: tuple[int, ...]) -> int:
    """Adds a float32 tensor that an operator computes from constants alone."""
    return self._add(None, np.float32, list(shape), 0, None)

  def constant(self, array: np.ndarray, quantization=None) -> int:
    """Adds a constant, as float32 if it has floating point."""
    array = np.asarray(array)
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    return self._add(None, array.dtype, list(array.shape), self._buffer(array.tobytes()), quantization)

  def _add(self, name: str | None, dtype, shape: list[int], buffer: int, quantization, signature=None) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, _TYPES[np.dtype(dtype)], shape, buffer
    tensor.shapeSignature, tensor.quantization = signature, quantization
    self.tensors.append(tensor)
    return len(self.tensors) - 1

  def _buffer(self, data: bytes) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    self._buffers.append(buffer)
    return len(self._buffers) - 1

  def operator(self, kind: str, inputs: list[int], output: int, options: Any = None, version: int | None = None) -> int:
    """Adds an operator; returns its output.

    Args:
      kind: its name in the schema.
      inputs, output: tensors.
      options: as `options` makes them.
      version: of the operator, if not that of `versions`.
    """
    operator = schema.OperatorT()
    operator.opcodeIndex = self._codes.setdefault((kind, version or self._versions.get(kind, 1)), len(self._codes))
    operator.inputs, operator.outputs = inputs, [output]
    if options is not None:
      operator.builtinOptions = options
      operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    self.operators.append(operator)
    return output

  def encode(self, images: int, logits: int) -> bytes:
    """The model's bytes, with a signature whose input is `images` and whose output is `logits`."""
    model, subgraph, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    subgraph.tensors, subgraph.operators, subgraph.name = self.tensors, self.operators, "network"
    subgraph.inputs, subgraph.outputs = [images], [logits]
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_tensor_map("images", images)], [_tensor_map("logits", logits)]
    model.version, model.description = _SCHEMA_VERSION, "shufflenet_jax"
    model.subgraphs, model.signatureDefs = [subgraph], [signature]
    model.buffers = self._buffers
    model.operatorCodes = [_operator_code(kind, version) for kind, version in self._codes]
    builder = flatbuffers.Builder(sum(buffer.data.nbytes for buffer in self._buffers[1:]) + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def options(kind: str, **fields) -> Any:
  """The schema's options of that name with these fields."""
  made = getattr(schema, f"{kind}OptionsT")()
  for name, value in fields.items():
    setattr(made, name, value)
  return made


def _operator_code(kind: str, version: int):
  code = schema.OperatorCodeT()
  code.builtinCode, code.version = getattr(schema.BuiltinOperator, kind), version
  code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # where readers before 2020 look
  return code


def _tensor_map(name: str, number: int):
  entry = schema.TensorMapT()
  entry.name, entry.tensorIndex = name, number
  return entry
