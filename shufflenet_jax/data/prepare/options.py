"""The options of `data.prepare`: each is a field of `Options`, from which the command makes a flag."""

import dataclasses
import re

from shufflenet_jax.errors import UserError

QUALITY = 90  # of JPEGs, unless --quality is given


def _option(help: str, default=dataclasses.MISSING, *, is_path: bool = False, bounds: tuple = (0, None)):
  """A field that carries what its flag needs: a help text, whether the value is a path, and the bounds of a number."""
  return dataclasses.field(default=default, metadata={"help": help, "is_path": is_path, "bounds": bounds})


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of one call; those without a default are required.

  Raises:
    UserError: a value is impossible, or useless without another.
  """

  name: str = _option("Name of the dataset: a-z, 0-9 and _.")
  train: str = _option("Folder or tar of the training pictures, or the file of their boxes (COCO, VOC).", is_path=True)
  validation: str = _option("Folder or tar of the validation pictures, or the file of their boxes.", is_path=True)
  to: str = _option("Folder of TFDS datasets to write into; later the value of --config.data.data_dir.", is_path=True)
  short_side: int | None = _option("Short side, pixels, to shrink larger pictures to.", None, bounds=(16, None))
  quality: int | None = _option(f"With --short_side: JPEG quality; {QUALITY} if not given.", None, bounds=(1, 100))
  upright: bool = _option("With --short_side: turns the pixels upright, by the EXIF orientation.", False)
  shards: int | None = _option(
    "Files per split; if not given, one per 128 MB of source pictures and at least 16.", None, bounds=(1, 99_999)
  )
  allow_partial: bool = _option(
    "Accepts a part of ImageNet; its labels are still right, as they follow from names and numbers.", False
  )
  train_pictures: str | None = _option(
    "With boxes: folder of the training pictures, if it is not where COCO and VOC have it.", None, is_path=True
  )
  validation_pictures: str | None = _option("With boxes: folder of the validation pictures.", None, is_path=True)
  skip_bad: int = _option("Leaves out up to this many pictures that cannot be decoded.", 0)

  def __post_init__(self):
    if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):  # TFDS would look for other names under another spelling
      raise UserError(f"--name={self.name} cannot name a dataset; use a-z, 0-9 and _, beginning with a letter")
    for flag in ("quality", "upright"):
      if getattr(self, flag) and not self.short_side:
        raise UserError(f"--{flag} needs --short_side: without it pictures are stored unchanged")
