"""Whether what was read is what was written.

Orbax and the formats below it notice missing and truncated files and some flipped
bits, but not all: an array whose bytes have changed may be read without an
error. So each checkpoint's description holds a digest of its arrays and one
of itself, and both are computed again from what is read.
"""

import hashlib
import json

import jax
import numpy as np


class Damaged(Exception):
  """What was read is not what was written; the message gives the evidence."""


def arrays_by_name(tree) -> dict[str, np.ndarray]:
  """`opt_state/1/0/trace/stem/kernel` -> array on the host; the names are the same for a `TrainState` and for
  the nested dicts and lists that Orbax reads from its files."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def digest_of_arrays(arrays: dict[str, np.ndarray]) -> str:
  """SHA-256 over names, dtypes, shapes and bytes; it does not depend on the devices that held the arrays."""
  sha = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
    sha.update(array.reshape(-1).view(np.uint8))  # (...) -> (bytes,)
  return sha.hexdigest()


def check_arrays(arrays: dict[str, np.ndarray], digest: str | None) -> None:
  """Raises `Damaged` unless the arrays have the digest (if there is one) and only finite values."""
  if digest and digest_of_arrays(arrays) != digest:
    raise Damaged("its arrays are not those that were saved: their digest differs")
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise Damaged(f"{name} has values that are not finite")


def seal(description: dict) -> dict:
  """The description with a digest of itself."""
  return description | {"seal": _digest_of_json(description)}


def check_seal(description: dict) -> None:
  """Raises `Damaged` if a description has a seal and does not match it."""
  unsealed = {k: v for k, v in description.items() if k != "seal"}
  if "seal" in description and description["seal"] != _digest_of_json(unsealed):
    raise Damaged("its description is not the one that was saved: its digest differs")


def _digest_of_json(values) -> str:
  return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
