"""Stored outputs of PyTorch networks with random weights, and the same weights made without PyTorch."""

import json
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).parent / "outputs.npz"
INPUT_SHAPE = (2, 64, 64, 3)

# name: (layout, groups, scale). The release at g=8, 0.5x has a stem of 16, and needs its own shuffle.
CASES = {
  "release_g3_0.5x": ("release", 3, 0.5),
  "release_g8_0.5x": ("release", 8, 0.5),
  "release_g3_1.5x": ("release", 3, 1.5),
  "pytorchcv_g1_0.25x": ("pytorchcv", 1, 0.25),
  "pytorchcv_g2_1x": ("pytorchcv", 2, 1.0),
  "pytorchcv_g3_0.75x": ("pytorchcv", 3, 0.75),
  "pytorchcv_g4_1x": ("pytorchcv", 4, 1.0),
  "pytorchcv_g8_1x": ("pytorchcv", 8, 1.0),
}


def random_state_dict(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
  """Weights of both signs, and batch norms that change their input, from NumPy's generator of a fixed sequence."""
  rng = np.random.RandomState(seed)
  weights = {}
  for key, shape in shapes.items():
    if key.endswith("num_batches_tracked"):
      weights[key] = np.zeros(shape, np.int64)
    elif key.endswith("running_var"):
      weights[key] = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    elif len(shape) > 1:
      weights[key] = (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    elif key.endswith("weight"):
      weights[key] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    else:
      weights[key] = (0.3 * rng.normal(size=shape)).astype(np.float32)
  return weights


def images() -> np.ndarray:
  """RGB images, float32 `INPUT_SHAPE`."""
  return np.random.RandomState(1).normal(size=INPUT_SHAPE).astype(np.float32)


def stored() -> dict[str, tuple[dict[str, tuple[int, ...]], np.ndarray]]:
  """name -> (shapes of the state dict, logits)."""
  with np.load(FILE) as f:
    return {name: (_shapes(f[f"{name}/shapes"]), f[f"{name}/logits"]) for name in CASES}


def _shapes(text: np.ndarray) -> dict[str, tuple[int, ...]]:
  return {key: tuple(shape) for key, shape in json.loads(str(text)).items()}


def store(results: dict[str, tuple[dict[str, tuple[int, ...]], np.ndarray]]) -> None:
  """Writes the file that `stored` reads."""
  arrays = {}
  for name, (shapes, logits) in results.items():
    arrays |= {f"{name}/shapes": np.array(json.dumps(shapes)), f"{name}/logits": logits}
  np.savez_compressed(FILE, **arrays)
