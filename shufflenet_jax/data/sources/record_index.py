"""Where records begin in TFRecord files, so that reading can start anywhere."""

import os

import numpy as np

# https://www.tensorflow.org/tutorials/load_data/tfrecord: uint64 length, uint32 its checksum, data, uint32 its checksum
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


def offsets(path: str, numbers: np.ndarray) -> np.ndarray:
  """Byte offsets of some records of a local file, found by hopping from header to header.

  Args:
    path: a TFRecord file.
    numbers: int64 (n,), which records, counted from 0, rising.

  Returns:
    int64 (n,).

  Raises:
    ValueError: the file ends before one of them.
  """
  found, offset, number = [], 0, 0
  with open(path, "rb") as f:
    size = os.fstat(f.fileno()).st_size
    for wanted in numbers:
      while number < wanted and offset < size:
        f.seek(offset)
        offset += _HEADER_BYTES + int.from_bytes(f.read(8), "little") + _FOOTER_BYTES
        number += 1
      if offset >= size:
        raise ValueError(f"{path} ends before record {wanted}")
      found.append(offset)
  return np.array(found, np.int64)
