"""Reads the weights of a PyTorch or safetensors file as NumPy arrays, without running code from the file."""

import collections
import os
import pickle
import re
import sys
import tarfile
import zipfile

import numpy as np

from shufflenet_jax.errors import CommandEnded, UserError

# Keys under which training scripts store a network's weights; if a file has several, the first is read. Averaged
# weights come last: they are read only if there are no others, because training scripts evaluate the others by default.
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")

# Buffers that tools add to a network's own: torch.optim.swa_utils, and thop, which counts operations.
TOOLS_BUFFERS = ("n_averaged", "total_ops", "total_params")

# First bytes of files that users mistake for PyTorch's, and the message for each.
_OTHER_FILES = (
  (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run git lfs pull"),
  (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras, for instance), not PyTorch's"),
  (b"\x1f\x8b", "is compressed by gzip: unpack it first"),
  (b"BZh", "is compressed by bzip2: unpack it first"),
  (b"\xfd7zXZ\0", "is compressed by xz: unpack it first"),
  (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it first"),
  (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"),
)


def load(path: str) -> dict[str, np.ndarray]:
  """Reads the network's weights from a file that PyTorch or safetensors has written.

  Containers such as {"model": {"state_dict": ...}} are opened, and a prefix that all keys share ("module.") is removed.
  Everything but tensors (epochs, arguments, the optimizer) is ignored, whatever its class.

  Returns:
    key -> float32 array.

  Raises:
    UserError: PyTorch is not installed, or the file holds no state dict of dense, real tensors.
  """
  try:
    import torch
  except ImportError:
    raise UserError(f"PyTorch is needed to read its files: {sys.executable} -m pip install torch==2.13.0") from None
  try:
    kind = _kind_of_file(path)
    loaded = _load_safetensors(path) if kind == "safetensors" else _load_pickled(path)
  except CommandEnded:
    raise
  except OSError as error:
    raise UserError(f"--from={path} cannot be read: {error.strerror or error}") from None
  except Exception as error:  # RuntimeError, UnpicklingError, KeyError, IndexError, ... of a damaged file
    raise UserError(f"--from={path} cannot be read by PyTorch: {_reason(error)}") from None
  state_dict = _open_containers(path, loaded)
  arrays = {}
  for key, value in state_dict.items():
    try:
      value = torch.as_tensor(value)  # a NumPy array becomes a tensor
      if value.is_complex():  # whose imaginary part float() would drop
        raise TypeError
      arrays[key] = value.detach().float().numpy()  # in float32, as NumPy has no bfloat16
    except (NotImplementedError, RuntimeError, TypeError):  # quantised, sparse, meta, or an array of objects
      raise UserError(
        f"--from={path} holds no state dict of tensors (dense, of real numbers): {key!r} is {describe(value)}"
      ) from None
  return _without_common_prefix(arrays)


def describe(value) -> str:
  """For messages: `of type list`, `empty`, `of type Tensor (torch.float32, torch.sparse_coo)`."""
  if isinstance(value, dict) and not value:
    return "empty"
  tensor = f" ({value.dtype}, {value.layout})" if hasattr(value, "layout") else ""
  return f"of type {type(value).__name__}{tensor}"


def _kind_of_file(path: str) -> str:
  """Returns "safetensors", or "" for a file that PyTorch may be able to read; raises a UserError for other kinds."""
  if os.path.isdir(path):
    raise UserError(f"--from={path} is a folder; name the file of the weights")
  if not os.path.exists(path):
    raise UserError(f"--from={path} does not exist")
  with open(path, "rb") as file:
    head = file.read(512)
  if not head:
    raise UserError(f"--from={path} is empty")
  for start, words in _OTHER_FILES:
    if head.startswith(start):
      raise UserError(f"--from={path} {words}")
  if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
    raise UserError(f"--from={path} is a web page, not the file itself: download it again")
  if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(path):
    return "safetensors"
  if zipfile.is_zipfile(path):
    _check_zip(path)
  elif tarfile.is_tarfile(path):
    with tarfile.open(path) as archive:
      names = archive.getnames()
    if not {"pickle", "storages"} <= set(names):  # the format of 2016, which PyTorch refuses with a message of its own
      raise UserError(f"--from={path} is a tar archive of {_some(names)}: unpack it first")
  elif all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
    raise UserError(f"--from={path} is a text file: {head[:40].decode('ascii').strip()!r} ...")
  return ""


def _check_zip(path: str) -> None:
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
  parts = {name.partition("/")[2].partition("/")[0] for name in names}
  if "constants.pkl" in parts:
    raise UserError(f"--from={path} is a TorchScript program: save its state_dict() and give that")
  if "data.pkl" not in parts:
    raise UserError(f"--from={path} is a zip archive of {_some(names)}, not PyTorch's: unpack it first")


def _some(names: list[str]) -> str:
  return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "nothing"


def _load_safetensors(path: str) -> dict:
  try:
    import safetensors.torch
  except ImportError:
    raise UserError(
      f"--from={path} is a safetensors file, which needs: {sys.executable} -m pip install safetensors==0.8.0"
    ) from None
  return safetensors.torch.load_file(path)


class _StandIn:
  """Replaces a class or function that PyTorch does not list as harmless; it ignores its arguments."""

  def __new__(cls, *arguments, **options):
    return object.__new__(cls)

  def __init__(self, *arguments, **options):
    pass

  def __setstate__(self, state):
    pass


class _DictStandIn:
  """The same for subclasses of dict: PyTorch's unpickler sets items of plain dicts only."""

  def __new__(cls, *arguments, **options):
    return collections.OrderedDict()


class _ListStandIn:
  """The same for subclasses of list, and for deques."""

  def __new__(cls, *arguments, **options):
    return []


_MODULE = "of_the_file"  # marks the stand-ins in PyTorch's messages


def _load_pickled(path: str):
  """Calls `torch.load` with `weights_only`, with stand-ins for the classes that it refuses to construct.

  An error of PyTorch names one refused class, or one operation that a stand-in lacks, so we retry until it succeeds.
  """
  import torch

  reconstruct = np.zeros(1).__reduce__()[0]  # its module differs between versions of NumPy
  arrays = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
  arrays += [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "bBhHiIlLqQefd?"}]
  stand_ins = {}
  while True:
    known = arrays + [(stand_in, name) for name, stand_in in stand_ins.items()]
    try:
      with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
      text = str(error)
      refused = re.search(r"GLOBAL (\S+) was not an allowed global", text)
      used = re.search(rf"Can only (\w+) .* got <class '{_MODULE}\.([^']+)'>", text)
      if refused and len(stand_ins) < 1000:
        name = refused[1] if "." in refused[1] else f"builtins.{refused[1]}"  # PyTorch leaves that out
        if name in stand_ins:
          raise
        stand_ins[name] = type(name, (_StandIn,), {"__module__": _MODULE})
      elif used:
        base = _DictStandIn if used[1].startswith("SETITEM") else _ListStandIn
        stand_ins[used[2]] = type(used[2], (base,), {"__module__": _MODULE})
      else:
        raise


def _reason(error: Exception) -> str:
  """PyTorch's own reason in one line, without its advice to allow the file's code to run."""
  text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())
  text = re.split(r"WeightsUnpickler error: |only if you got the file from a trusted source\. ", text)[-1]
  text = re.split(r"(?<=[^.]{9})\. | Please (use|file) | Check the documentation", text)[0]
  return text[:200] or type(error).__name__


def _tensors(value) -> dict:
  """The entries of a dict that are tensors or arrays, by name; {} of anything else."""
  import torch

  if not isinstance(value, dict):
    return {}
  return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, torch.Tensor | np.ndarray)}


def _has_tensors(value, depth: int = 3) -> bool:
  """Whether a dict, or one nested in it, holds tensors. {"model": {"name": ..., "groups": 3}} does not."""
  return bool(_tensors(value)) or (
    depth > 0 and isinstance(value, dict) and any(_has_tensors(v, depth - 1) for v in value.values())
  )


def _open_containers(path: str, loaded) -> dict:
  """Finds the state dict in a file's content, and drops everything in it but tensors.

  Raises:
    UserError: there is none, or there are several and none has a usual name.
  """
  import torch

  value = loaded
  for _ in range(4):  # {"model": {"state_dict": ...}} and a little more
    if not isinstance(value, dict):
      break
    inside = {key: v for key, v in value.items() if _has_tensors(v)}
    named = [key for key in (*CONTAINERS, *AVERAGED) if key in inside]
    of_tensors = [key for key, v in inside.items() if _tensors(v)]
    if named:
      value = inside[named[0]]
    elif _tensors(value) or not of_tensors:
      break
    elif len(of_tensors) == 1:
      value = inside[of_tensors[0]]
    else:
      raise UserError(f"--from={path} holds several state dicts ({', '.join(map(str, of_tensors))}): save only one")
  weights = {k: v for k, v in _tensors(value).items() if k.rpartition(".")[2] not in (*TOOLS_BUFFERS, *CONTAINERS)}
  if tensors := {k: v for k, v in weights.items() if isinstance(v, torch.Tensor)}:
    weights = tensors  # NumPy arrays among tensors are statistics, not weights
  if weights:
    return weights
  for key in (*CONTAINERS, *AVERAGED):  # for the message: what is stored in place of a state dict
    value = value[key] if isinstance(value, dict) and key in value else value
  if type(value).__module__ == _MODULE:
    raise UserError(
      f"--from={path} holds an object {describe(value)}, and its code is not run: save the model's state_dict()"
    )
  if isinstance(value, dict) and value:
    key, entry = next(iter(value.items()))
    raise UserError(
      f"--from={path} holds no state dict of tensors (dense, of real numbers): {key!r} is {describe(entry)}"
    )
  raise UserError(f"--from={path} holds no state dict of tensors: what it holds is {describe(value)}")


def _without_common_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Removes prefixes that wrappers add to every key: "module.", "_orig_mod.", "model.", or any other single name.

  "features" is kept, because both layouts have it: if a file has only that part, the error then shows its own keys.
  """
  while True:
    first = {key.partition(".")[0] for key in arrays}
    if len(first) != 1 or "features" in first or not all(key.partition(".")[2] for key in arrays):
      return arrays
    arrays = {key.partition(".")[2]: value for key, value in arrays.items()}
