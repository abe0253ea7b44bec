"""Whether what was read is what was written.

Orbax and the formats below it notice files that are missing or short, and some
flipped bits, but not all: an array's bytes may change, and it is read without
a word. So each checkpoint's description holds a digest of its arrays and one
of itself, and both are computed again from what is read.
"""

import hashlib
import json

import jax
import numpy as np


class Damaged(Exception):
  """What was read is not what was written; the message says what shows it."""


def arrays_by_name(tree) -> dict[str, np.ndarray]:
  """`opt_state/1/0/trace/stem/kernel` -> array on the host; the same names for a `TrainState` and for what Orbax
  reads of it, which are nested dicts and lists."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def digest_of_arrays(arrays: dict[str, np.ndarray]) -> str:
  """SHA-256 over names, dtypes, shapes and bytes; wherever the arrays lay, whoever wrote them."""
  sha = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
    sha.update(array.reshape(-1).view(np.uint8))  # (...) -> (bytes,)
  return sha.hexdigest()


def check_arrays(arrays: dict[str, np.ndarray], digest: str | None) -> None:
  """Raises `Damaged` unless the arrays have the digest (where there is one) and only finite values."""
  if digest and digest_of_arrays(arrays) != digest:
    raise Damaged("its arrays are not those that were saved: their digest differs")
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise Damaged(f"{name} has values that are not finite")


def seal(description: dict) -> dict:
  """The description with a digest of itself."""
  return description | {"seal": _digest_of_json(description)}


def check_seal(description: dict) -> None:
  """Raises `Damaged` unless a description with a seal is as it was sealed."""
  unsealed = {k: v for k, v in description.items() if k != "seal"}
  if "seal" in description and description["seal"] != _digest_of_json(unsealed):
    raise Damaged("its description is not the one that was saved: its digest differs")


def _digest_of_json(values) -> str:
  return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
