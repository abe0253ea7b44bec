"""Makes pictures as the bytes of files."""

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

RNG = np.random.default_rng(0)


def picture(height=20, width=30, kind="JPEG", mode="RGB", **save) -> bytes:
  """A picture of coarse noise, unlike any other."""
  coarse = Image.fromarray(RNG.integers(0, 256, (4, 6, 3), np.uint8))
  buffer = io.BytesIO()
  coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(buffer, kind, **save)
  return buffer.getvalue()


def uniform(value, height=50, width=60, kind="JPEG") -> bytes:
  """A picture all of whose pixels and channels have one value."""
  encode = {"JPEG": tf.io.encode_jpeg, "PNG": tf.io.encode_png}[kind]
  return encode(np.full((height, width, 3), value, np.uint8)).numpy()


def put(path: Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def opened(encoded) -> Image.Image:
  image = Image.open(io.BytesIO(encoded))
  image.load()
  return image
