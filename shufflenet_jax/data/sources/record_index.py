"""Where records begin in TFRecord files, so that reading can start at any of them."""

import os

import numpy as np

# A record is a uint64 length, the uint32 checksum of the length, the data, and the uint32 checksum of the data:
# https://www.tensorflow.org/tutorials/load_data/tfrecord
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


def offsets(path: str, numbers: np.ndarray) -> np.ndarray:
  """Finds the byte offsets of some records of a local file, reading nothing but the records' lengths.

  Args:
    path: a TFRecord file.
    numbers: int64 (n,), which records, counted from 0, ascending.

  Returns:
    int64 (n,).

  Raises:
    ValueError: the file ends before one of the records.
  """
  result, offset, number = [], 0, 0
  with open(path, "rb") as f:
    size = os.fstat(f.fileno()).st_size
    for wanted in numbers:
      while number < wanted and offset < size:
        f.seek(offset)
        offset += _HEADER_BYTES + int.from_bytes(f.read(8), "little") + _FOOTER_BYTES
        number += 1
      if offset >= size:
        raise ValueError(f"{path} ends before record {wanted}")
      result.append(offset)
  return np.array(result, np.int64)
