"""The crop of evaluation in NumPy, for deployed files: the pixels that `stream/augment.py` computes with TensorFlow."""

import numpy as np

# The largest ratio of the long side to the short side. A picture of 20,000 x 2 pixels, resized to a short side of 256,
# would take gigabytes.
MAX_SIDE_RATIO = 16


def center_crop(image: np.ndarray, *, height: int, width: int, resize: int, antialias: bool) -> np.ndarray:
  """The short side to `resize` pixels, bilinear, then the central `height` x `width`.

  Only the pixels of the crop are computed, in float32 as in TensorFlow: few differ from TensorFlow's, and by one level.

  Args:
    image: uint8 (h, w, 3).
    height, width: of the crop, pixels, at most `resize`.
    resize: pixels of the short side before the crop.
    antialias: whether resizing averages over the pixels that it leaves out.

  Returns:
    uint8 (height, width, 3).
  """
  image = _limit_side_ratio(image)
  sides = np.array(image.shape[:2], np.float32)
  resized = np.round(sides * (np.float32(resize) / sides.min())).astype(int)
  corner = np.round((resized - (height, width)) / 2).astype(int)  # halves to the even pixel, as in torchvision
  for axis, size in enumerate((height, width)):
    positions = corner[axis] + np.arange(size)
    image = _resample(image, axis, *_taps(image.shape[axis], resized[axis], positions, antialias))
  return (image + np.float32(0.5)).astype(np.uint8)


def _limit_side_ratio(image: np.ndarray) -> np.ndarray:
  """The central part of a picture whose long side exceeds `MAX_SIDE_RATIO` short sides; other pictures unchanged."""
  h, w, _ = image.shape
  top, left = (max(side - MAX_SIDE_RATIO * min(h, w), 0) // 2 for side in (h, w))
  return image[top : h - top, left : w - left]


def _taps(side: int, resized: int, positions: np.ndarray, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
  """The pixels of which each resized pixel is a weighted mean, along one axis.

  Args:
    side: pixels before resizing.
    resized: pixels after it.
    positions: int (n,), which of the resized pixels are wanted.
    antialias: see `center_crop`.

  Returns:
    (which pixels, int (n, taps); their weights, float32 (n, taps), which add up to 1).
  """
  step = np.float32(side) / np.float32(resized)
  if antialias:  # TensorFlow has another operation for this, with another rounding
    step = np.float32(1 / float(np.float32(resized) / np.float32(side)))
  radius = max(step, np.float32(1)) if antialias else np.float32(1)
  half = np.float32(0.5)  # a pixel's centre
  centers = (positions.astype(np.float32) + half) * step
  first = np.clip(np.ceil(centers - radius - half), 0, side - 1).astype(int)
  last = np.clip(np.floor(centers + radius - half), 0, side - 1).astype(int)
  taps = first[:, None] + np.arange((last - first).max() + 1)
  distances = np.abs(taps.astype(np.float32) + half - centers[:, None])
  weights = np.maximum(1 - distances / radius, 0) * (taps <= last[:, None])
  return np.minimum(taps, side - 1), weights / weights.sum(1, keepdims=True)


def _resample(image: np.ndarray, axis: int, taps: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Weighted means along an axis, 0 or 1: (h, w, 3) -> float32 (n, w, 3) or (h, n, 3); see `_taps`."""
  total = np.float32(0)
  for tap, weight in zip(taps.T, weights.T):
    total = total + image.take(tap, axis) * np.expand_dims(weight, (1, 2) if axis == 0 else (0, 2))
  return total
