"""What a deployed file says about itself: how to prepare a picture, and the names of the classes.

A picture is resized bilinearly to a short side of `resize` pixels; its central `height` x `width` in RGB is the input.
"""

import dataclasses
import json
from typing import Any

import numpy as np

from shufflenet_jax.data import picture_formats
from shufflenet_jax.data.center_crop import center_crop

KEY = "shufflenet_jax"  # of the entry in the file's metadata
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Description:
  """The description of a deployed network.

  Attributes:
    network: in words, such as `shufflenet_v1 scale=0.5 groups=3`.
    classes: names in the order of the logits.
    height, width: of the pictures, pixels.
    resize: pixels of a picture's short side before its centre is cropped.
    antialias: whether downscaling averages over all source pixels.
    step: of the training run.
    config: of the run, as plain JSON values.
    batch: how many pictures the file takes at once; None for any.
  """

  network: str
  classes: tuple[str, ...]
  height: int
  width: int
  resize: int
  antialias: bool
  step: int
  config: dict[str, Any]
  batch: int | None = None

  def decode(self, encoded: bytes) -> np.ndarray:
    """An image's encoded bytes -> uint8 (height, width, 3), cropped as evaluation does.

    Raises:
      PictureError: they cannot be decoded.
    """
    image = picture_formats.pixels(encoded)
    return center_crop(image, height=self.height, width=self.width, resize=self.resize, antialias=self.antialias)

  def to_json(self) -> str:
    """The text that a file carries. The network itself scales pictures; its `config.data` says how it does."""
    values = dataclasses.asdict(self)
    prepare = {name: values.pop(name) for name in ("height", "width", "resize", "antialias")}
    return json.dumps({"format": FORMAT, **values, "input": prepare}, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Description:
  """The description in a text of `Description.to_json`.

  Raises:
    ValueError: it is not such a text, or of a later format.
  """
  try:
    values = json.loads(text)
    if values.pop("format") != FORMAT:
      raise ValueError("it was written by a later version; install that")
    return Description(**values.pop("input"), **values | {"classes": tuple(values["classes"])})
  except (AttributeError, KeyError, TypeError, json.JSONDecodeError):
    raise ValueError("its description is damaged") from None
