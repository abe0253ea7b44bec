"""Finds the pictures in a folder or a tar that holds class folders or has the form of ImageNet's tars.

Tars are read in place.
"""

import dataclasses
import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator

from shufflenet_jax import storage
from shufflenet_jax.data import picture_formats
from shufflenet_jax.data.listing import is_hidden, printable, visible_folders
from shufflenet_jax.data.prepare import imagenet
from shufflenet_jax.data.prepare.source import Picture, Source
from shufflenet_jax.errors import UserError

_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_OF_BOXES = ("annotations", "imagesets")  # folders of COCO, Pascal VOC and others, in lower case


@dataclasses.dataclass(frozen=True)
class ClassSource(Source):
  """The pictures of one split, each labelled with the name of its class.

  Their names are `CLASS/.../FILE`, or only `FILE` in ImageNet's validation tar.

  Attributes:
    of_imagenet: whether only ImageNet comes in this form.
  """

  of_imagenet: bool


def open_source(flag: str, path: str, progress: Callable[[int], None]) -> ClassSource:
  """Lists the pictures in a folder or tar, in whichever of the known forms it has.

  Args:
    flag: for messages, for instance `--train`.
    path: a folder or an uncompressed tar of class folders, of one tar per class (`nXXXXXXXX.tar`), or of
      `ILSVRC2012_val_XXXXXXXX.JPEG`.
    progress: called at intervals with the number of files seen.

  Raises:
    UserError: the source is absent, unreadable, truncated or empty, a class has no pictures, or a name occurs twice.
  """
  source = f"{flag}={path}"
  if not os.path.exists(path):
    raise UserError(f"{source} does not exist; give a folder or a tar of class folders, or one of ImageNet's tars")
  try:
    contents = _Contents.of_members(_members(path), progress)
  except OSError as error:
    raise UserError(f"{source} cannot be read: {error.filename or path}: {error.strerror}") from None
  kind = "one tar per class, as in ImageNet's training tar" if contents.has_class_tars else "class folders"
  is_validation_tar = contents.label_validation_pictures()
  if is_validation_tar:
    kind = "ImageNet's validation pictures"
  contents.check(source)
  note, ignored = "", contents.ignored + [member.name for member in contents.outside_classes]
  if ignored:
    first = printable(min(ignored))
    note = f"{flag}: ignored {len(ignored):,} files that are not pictures in a class folder, {first} first"
  return ClassSource(
    path=path,
    kind=kind,
    of_imagenet=contents.has_class_tars or is_validation_tar,
    pictures=sorted(contents.pictures, key=lambda p: p.name),
    note=note,
  )


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
  """An entry of a folder or tar; `kind` is "file", "folder", or "class tar" for a tar in place of a class folder."""

  name: str
  path: str
  offset: int = 0
  size: int = 0
  kind: str = "file"

  def is_picture(self) -> bool:
    if picture_formats.has_suffix(self.name):
      return True
    with open(self.path, "rb") as file:
      file.seek(self.offset)
      return picture_formats.is_picture(file.read(min(picture_formats.HEAD_BYTES, self.size)))

  def as_picture(self, label: str) -> Picture:
    return Picture(name=self.name, label=label, path=self.path, offset=self.offset, size=self.size)


@dataclasses.dataclass
class _Contents:
  """What a folder or tar holds.

  Attributes:
    classes: names of class folders.
    pictures: those in class folders.
    outside_classes: pictures in no class folder.
    ignored: names of files that are not pictures.
    has_class_tars: whether any class folder is a tar.
  """

  classes: set[str] = dataclasses.field(default_factory=set)
  pictures: list[Picture] = dataclasses.field(default_factory=list)
  outside_classes: list[_Member] = dataclasses.field(default_factory=list)
  ignored: list[str] = dataclasses.field(default_factory=list)
  has_class_tars: bool = False

  @classmethod
  def of_members(cls, members: Iterable[_Member], progress: Callable[[int], None]) -> "_Contents":
    contents = cls()
    for count, member in enumerate(members):
      if count % 1000 == 0:
        progress(count)
      class_name, _, rest = member.name.partition("/")
      contents.has_class_tars |= member.kind == "class tar"
      if member.kind != "file":
        contents.classes.add(class_name)
      elif not member.is_picture():
        contents.ignored.append(member.name)
      elif rest:
        contents.pictures.append(member.as_picture(class_name))
      else:
        contents.outside_classes.append(member)
    return contents

  def label_validation_pictures(self) -> bool:
    """If the source holds ImageNet's validation pictures in place of class folders, labels them and returns True."""
    is_named = [imagenet.VALIDATION_NAME.fullmatch(member.name) for member in self.outside_classes]
    if self.pictures or not any(is_named):
      return False
    named = [member for member, match in zip(self.outside_classes, is_named) if match]
    self.outside_classes = [member for member, match in zip(self.outside_classes, is_named) if not match]
    self.pictures = [member.as_picture(imagenet.validation_label(member.name)) for member in named]
    self.classes = set()
    return True

  def check(self, source: str) -> None:
    """Raises a UserError for no pictures, annotations of boxes, an empty class folder, or two pictures of one name."""
    if boxes := sorted(name for name in self.classes if name.lower() in _OF_BOXES):
      raise UserError(
        f"{source} holds {boxes[0]}, as datasets with boxes do, and not only class folders; for boxes give COCO's .json"
        " or Pascal VOC's .txt"
      )
    if not self.pictures:
      raise UserError(f"{source} holds no pictures ({picture_formats.NAMES}) in class folders")
    empty = sorted(self.classes - {p.label for p in self.pictures})
    if empty:
      raise UserError(
        f"{source}: {len(empty)} class folders hold no pictures ({picture_formats.NAMES}), {printable(empty[0])} first;"
        " fill or remove them"
      )
    for name, following in itertools.pairwise(sorted(p.name for p in self.pictures)):
      if name == following:
        raise UserError(f"{source} holds {printable(name)} twice; remove one of them")


def _members(path: str) -> Iterator[_Member]:
  """Everything that is not hidden; a class's tar counts as the class folder that it holds."""
  for member in _in_folder(path) if os.path.isdir(path) else _in_tar(path):
    if is_hidden(member.name):
      continue
    class_tar = _CLASS_TAR.fullmatch(member.name) if member.kind == "file" else None
    if not class_tar:
      yield member
      continue
    class_name = class_tar[1]
    yield _Member(class_name, member.path, kind="class tar")
    for inner in _in_tar(member.path, member.offset, member.size):
      if inner.kind == "file" and not inner.name.startswith("."):
        yield dataclasses.replace(inner, name=f"{class_name}/{inner.name}")


def _in_folder(root: str) -> Iterator[_Member]:
  yield from (_Member(name, root, kind="folder") for name in visible_folders(root))
  neither_file_nor_folder = {}
  for name, size in storage.walk(root, neither_file_nor_folder):
    yield _Member(name, os.path.join(root, name), size=size)
  for name, kind in neither_file_nor_folder.items():
    if not is_hidden(name):  # an editor's lock file, for instance, is a hidden link to nowhere
      raise UserError(f"{printable(os.path.join(root, name))} is {kind}; remove it")


def _in_tar(path: str, begin: int = 0, size: int | None = None) -> Iterator[_Member]:
  """Members of a tar, or of a tar that occupies the bytes `begin` to `begin + size` of another."""
  with open(path, "rb") as file:
    end = os.fstat(file.fileno()).st_size if size is None else begin + size
    file.seek(begin)
    is_tar = False
    try:
      with tarfile.open(fileobj=file, mode="r:") as tar:
        is_tar = True
        while (member := tar.next()) is not None and member.offset_data + member.size <= end:
          tar.members.clear()  # tarfile would keep a million of them
          if member.isdir() or member.isreg():
            name = posixpath.normpath(member.name).lstrip("/")
            kind = "folder" if member.isdir() else "file"
            yield _Member(name, path, member.offset_data, member.size, kind)
      # tarfile takes a damaged header for the end of the tar. The real end is a block of zeros.
      file.seek(tar.offset)
      if member is not None or tar.offset + tarfile.BLOCKSIZE > end or any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("unexpected end of data")
    except tarfile.TarError as error:
      problem = "is truncated or damaged" if is_tar else "is not a tar, or it is compressed or truncated"
      where = f" within bytes {begin} to {end}" if size is not None else ""
      raise UserError(f"{path} {problem}{where} ({error}); get an intact copy, and give it uncompressed") from None
