"""Batches of a split: an endless, shuffled, resumable stream for training, and an exact one for evaluation.

A batch is a dict of NumPy arrays:

  image   uint8 (n, size, size, 3)
  label   int32 (n,); for detection `boxes`, `label` and more, see `objects.py`
  id      int64 (n,), the example's position in the split
  flip    bool (n,), in training, if the config asks for it: whether the step mirrors the image
  mask    bool (n,), in evaluation: False for padding in the last batches, and for pictures that cannot be decoded
"""
