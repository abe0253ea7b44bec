"""Applies a deployed file's network to pictures, as `prediction/predictor.py` does a checkpoint's.

Neither JAX nor TensorFlow is needed: Pillow decodes, NumPy crops, and the file's own runtime computes. The pixels are
the same as for a checkpoint, with two exceptions: very few pixels differ, by one level, because sums are added up in
another order; and Pillow decodes some damaged pictures that TensorFlow refuses.
"""

import numpy as np

from shufflenet_jax.answers import TopClasses
from shufflenet_jax.deployment import runtimes

# How many pictures are decoded in advance, at least. On a CPU the runtimes are no faster with larger batches, so a file
# that takes any number of pictures is run with one at a time.
_GROUP_SIZE = 8


class FilePredictor:
  """Applies a deployed file's network to pictures; this gives their most probable classes.

  Attributes:
    task: makes and prints the answers.
    batch_sizes: numbers of pictures that are worth giving to `answers` together, ascending.
  """

  def __init__(self, path: str):
    """Raises a UserError if there is no such file, it is not one of ours, or its runtime is not installed."""
    self._network = runtimes.load(path)
    self.task = TopClasses()
    self._batch = self._network.description.batch or 1
    self.batch_sizes = (self._batch, self._batch * max(_GROUP_SIZE // self._batch, 1))

  def decode(self, encoded: bytes) -> np.ndarray:
    """An image's encoded bytes -> uint8 (h, w, 3), cropped as the file describes. May be called by several threads.

    Raises:
      PictureError: they cannot be decoded.
    """
    return self._network.description.decode(encoded)

  def answers(self, images: list[np.ndarray], batch_size: int) -> list[list[tuple[str, float]]]:
    """The most probable classes of each of some decoded images, whatever `batch_size` is; see `TopClasses`."""
    del batch_size  # the file determines it
    starts = range(0, len(images), self._batch)
    logits = np.concatenate([self._logits(images[start : start + self._batch]) for start in starts])
    return [self.task.answer(row, self._network.description.classes) for row in _softmax(logits)]

  def _logits(self, images: list[np.ndarray]) -> np.ndarray:
    """float32 (n, classes) of n images, at most as many as the file takes at once."""
    batch = np.zeros((self._batch, *images[0].shape), np.uint8)
    batch[: len(images)] = images
    return self._network(batch)[: len(images)]


def _softmax(logits: np.ndarray) -> np.ndarray:
  """float32 (n, classes) -> float32 (n, classes)."""
  powers = np.exp(logits - logits.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)
