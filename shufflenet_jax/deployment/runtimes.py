"""Runs deployed files, each with its own runtime and without the network's code. Only `.stablehlo` needs JAX."""

import contextlib
import dataclasses
import io
import os
import zipfile
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from shufflenet_jax import storage
from shufflenet_jax.deployment import description
from shufflenet_jax.deployment.description import Description
from shufflenet_jax.errors import UserError

DESCRIPTION_FILE, LABELS_FILE = "metadata.json", "labels.txt"  # in the zip archive at the end of a file
SUFFIXES = (".tflite", ".onnx", ".stablehlo")


class Runtime(Protocol):
  """A loaded file.

  Attributes:
    description: what the file says about itself.
  """

  description: Description

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """uint8 RGB pictures (n, h, w, 3) -> logits, float32 (n, classes)."""


def suffix_of(path: str, flag: str) -> str:
  """The suffix of a deployed file's path.

  Raises:
    UserError: it is none of `SUFFIXES`.
  """
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in SUFFIXES:
    raise UserError(f"{flag}={path} ends in none of {', '.join(SUFFIXES)}, by which the format is chosen")
  return suffix


def is_deployed(path: str) -> bool:
  """Whether a path is that of a deployed file, by its suffix; a folder of such a name is none.

  Raises:
    Refused, Unavailable: that cannot be determined now.
  """
  return os.path.splitext(path)[1].lower() in SUFFIXES and not storage.is_folder(storage.normalize(path))


def load(path: str, flag: str = "--checkpoint", threads: int | None = None) -> Runtime:
  """Loads a deployed file.

  Args:
    path: local or in a bucket.
    flag: where the path comes from, for messages.
    threads: how many the runtime may use; None for its own choice.

  Raises:
    UserError: there is no such file, it is not one of ours or is damaged, or its runtime is not installed.
    Refused, Unavailable: it cannot be read.
  """
  suffix = suffix_of(path, flag)
  try:
    content = storage.read_bytes(storage.normalize(path, f"{flag}="))
  except FileNotFoundError:
    raise UserError(f"{flag}={path} does not exist; python -m shufflenet_jax.export writes such files") from None
  try:
    with _silent_stderr():  # some runtimes also print what is wrong
      runtime = loaded(suffix, content, threads)
      _check_answers(runtime)
    return runtime
  except UserError:
    raise
  except Exception as error:  # each runtime has its own, of many kinds
    reason = " ".join(str(error).split())[:200]
    raise UserError(
      f"{flag}={path} cannot be run: {reason}; give a whole file that python -m shufflenet_jax.export has written"
    ) from None


def _check_answers(runtime: Runtime) -> None:
  """Raises a ValueError unless the network takes the pictures, and gives the logits, that its description names."""
  described = runtime.description
  n = described.batch or 1
  logits = runtime(np.zeros((n, described.height, described.width, 3), np.uint8))
  if logits.shape != (n, len(described.classes)):
    raise ValueError(
      f"its network gives logits of shape {logits.shape}, its description names {len(described.classes):,} classes"
    )


def loaded(suffix: str, content: bytes, threads: int | None = None) -> Runtime:
  """The file with this suffix and content, ready to run.

  Raises:
    UserError: its runtime is not installed.
    Exception: of many kinds, from the runtimes: the content is not that of such a file.
  """
  try:
    return _RUNTIMES[suffix](content, threads)
  except ModuleNotFoundError as error:
    raise missing(error) from None


def missing(error: ModuleNotFoundError) -> UserError:
  """The error for a runtime or format whose package is not installed."""
  package = error.name.partition(".")[0]
  return UserError(f"the package {package} is not installed; get it: python -m pip install 'shufflenet_jax[export]'")


def with_archive(content: bytes, described: Description) -> bytes:
  """Appends a zip archive with the description and the class names to a file.

  Flatbuffers are read from their start, and zip archives from their end.
  """
  file = io.BytesIO(content)
  texts = {
    DESCRIPTION_FILE: dataclasses.replace(described, classes=()).to_json(),
    LABELS_FILE: "".join(f"{' '.join(name.splitlines())}\n" for name in described.classes),
  }
  with zipfile.ZipFile(file, "a") as appended:
    for name, text in texts.items():
      appended.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
  return file.getvalue()


def _archived_description(content: bytes) -> Description:
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as appended:
      classes = tuple(appended.read(LABELS_FILE).decode().split("\n")[:-1])
      described = description.from_json(appended.read(DESCRIPTION_FILE).decode())
      return dataclasses.replace(described, classes=classes)
  except (zipfile.BadZipFile, KeyError):
    raise ValueError("it has no description") from None


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
  """Discards what libraries in C++ print to stderr inside the block."""
  kept = os.dup(2)
  try:
    with open(os.devnull, "wb") as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)


class _Onnx:
  def __init__(self, content: bytes, threads: int | None):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Without `enable_fallback=0`, it prints that it tries a damaged file a second time.
    self._session = onnxruntime.InferenceSession(
      content, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    texts = self._session.get_modelmeta().custom_metadata_map
    if description.KEY not in texts:
      raise ValueError("it has no description")
    self.description = description.from_json(texts[description.KEY])

  def __call__(self, images: np.ndarray) -> np.ndarray:
    (logits,) = self._session.run(["logits"], {"images": images})
    return logits


class _LiteRT:
  def __init__(self, content: bytes, threads: int | None):
    from ai_edge_litert.interpreter import Interpreter

    self.description = _archived_description(content)
    self._interpreter = Interpreter(model_content=content, num_threads=threads)
    with _silent_stderr():  # otherwise it prints a line when it first allocates, which no setting prevents
      self._interpreter.allocate_tensors()
    self._input, self._output = (
      details["index"] for (details,) in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
    )
    self._shape = None

  def __call__(self, images: np.ndarray) -> np.ndarray:
    if images.shape != self._shape:
      self._interpreter.resize_tensor_input(self._input, images.shape)
      self._interpreter.allocate_tensors()
      self._shape = images.shape
    self._interpreter.set_tensor(self._input, images)
    self._interpreter.invoke()
    return self._interpreter.get_tensor(self._output)


class _StableHlo:
  def __init__(self, content: bytes, threads: int | None):
    import jax.export

    self.description = _archived_description(content)
    self._call = jax.jit(jax.export.deserialize(bytearray(content)).call)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    return np.asarray(self._call(images))


_RUNTIMES = {".tflite": _LiteRT, ".onnx": _Onnx, ".stablehlo": _StableHlo}
