"""Where the pictures of a split are, and what a dataset is made of: the same for classes and for boxes."""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import tensorflow_datasets as tfds

from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
  """Where the bytes of one picture are.

  Attributes:
    name: unique within its split.
    label: what is known about it: the name of its class, or an `AnnotatedPicture` with its boxes. The label's `str` is
      part of the plan (`plan.py`).
    path: the file that holds it: the picture's own, or a tar.
    offset: of its first byte in that file.
    size: bytes.
  """

  name: str
  label: typing.Any
  path: str
  offset: int
  size: int

  def read(self) -> bytes:
    """The picture's bytes.

    Raises:
      UserError: the file is gone or has changed.
    """
    try:
      with open(self.path, "rb") as file:
        file.seek(self.offset)
        encoded = file.read(self.size)
    except OSError as error:
      raise UserError(f"{self.path} cannot be read: {error.strerror}") from None
    if len(encoded) != self.size:
      raise UserError(f"{self.path} has become shorter since it was listed: {self.name} is no longer complete")
    return encoded


@dataclasses.dataclass(frozen=True)
class Source:
  """The pictures of one split. `classes.py` and `objects.py` have a subclass each.

  Attributes:
    path: what --train or --validation names.
    kind: the form in which the pictures come, for messages.
    pictures: sorted by name.
    note: what the user should know, for instance which files were ignored; "" if nothing.
  """

  path: str
  kind: str
  pictures: list[Picture]
  note: str


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a dataset holds, besides the pictures themselves.

  Attributes:
    title: `Pictures of 2 classes`.
    num_classes: of the feature `label`.
    features: of an example.
    supervised_keys: TFDS's.
    homepage: "" if there is none.
    to_example: (picture, the bytes to store) -> the example's fields; may raise a `PictureError`.
    describe: a split's source -> `2 classes of 10 to 12`.
    plan: further entries of the plan.
    files: further files in the dataset's folder, name -> content.
    config: the config file for such datasets; "" if there are several.
  """

  title: str
  num_classes: int
  features: tfds.features.FeaturesDict
  supervised_keys: tuple[str, str] | None
  homepage: str
  to_example: Callable[[Picture, bytes], dict]
  describe: Callable[[Source], str]
  plan: dict = dataclasses.field(default_factory=dict)
  files: dict[str, bytes] = dataclasses.field(default_factory=dict)
  config: str = ""


def check_names(what: str, names: Sequence[str]) -> None:
  """Raises a UserError if TFDS, which writes one name to a line, cannot store one of the names.

  `what` says what the names belong to, for the message: `class folder`.
  """
  for name in names:
    if name != name.strip() or not name.isprintable():
      raise UserError(f"{what} {name!r} has a name that TFDS cannot store; rename it")


def check_same_in_both(what: str, **only_in: list[str]) -> None:
  """Raises a UserError if a split has names that the other lacks.

  Args:
    what: what the names belong to, in the plural, for the message: `classes`.
    **only_in: split -> the names that only it has.
  """
  differences = []
  for split, only in only_in.items():
    if only:
      more = f" and {len(only) - 5:,} more" if len(only) > 5 else ""
      differences.append(f"only in {split}: {', '.join(only[:5])}{more}")
  if differences:
    raise UserError(f"the {what} of --train and --validation differ; {'; '.join(differences)}")
