"""Where pictures are: class folders or ImageNet's own tars, in a folder or in a tar, which is read in place."""

import dataclasses
import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator

from shufflenet_jax import storage
from shufflenet_jax.data import pictures
from shufflenet_jax.data.prepare import imagenet
from shufflenet_jax.data.sources import folders
from shufflenet_jax.errors import UserError

_TAR_OF_CLASS = re.compile(r"(n\d{8})\.tar")


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
  """Where the bytes of one picture are.

  Attributes:
    name: `CLASS/.../FILE`, or only `FILE` in ImageNet's validation tar.
    label: name of its class.
    path: the file that holds it: itself, or a tar.
    offset: of its first byte there.
    size: bytes.
  """

  name: str
  label: str
  path: str
  offset: int
  size: int

  def read(self) -> bytes:
    """Its bytes.

    Raises:
      UserError: they are not there any more.
    """
    try:
      with open(self.path, "rb") as file:
        file.seek(self.offset)
        encoded = file.read(self.size)
    except OSError as error:
      raise UserError(f"{self.path} cannot be read: {error.strerror}") from None
    if len(encoded) != self.size:
      raise UserError(f"{self.path} has become shorter since it was looked through; {self.name} is not whole any more")
    return encoded


@dataclasses.dataclass(frozen=True)
class Source:
  """The pictures of one split.

  Attributes:
    path: the folder or tar.
    kind: what was found in it, for messages.
    of_imagenet: whether it is in one of the forms in which ImageNet alone comes.
    pictures: by name.
    note: what was passed over, "" if nothing.
  """

  path: str
  kind: str
  of_imagenet: bool
  pictures: list[Picture]
  note: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
  name: str
  path: str
  offset: int = 0
  size: int = 0
  what: str = "file"  # or "folder", or "class tar" for the folder that a class's tar stands for

  def head(self) -> bytes:
    """The first bytes, from which the format follows."""
    with open(self.path, "rb") as file:
      file.seek(self.offset)
      return file.read(min(pictures.HEAD_BYTES, self.size))


def open_source(flag: str, path: str, tell: Callable[[int], None]) -> Source:
  """Looks through a folder or tar; the kind follows from what is inside.

  Args:
    flag: for messages, for instance `--train`.
    path: a folder or an uncompressed tar, of class folders, of one tar per
      class (`nXXXXXXXX.tar`), or of `ILSVRC2012_val_XXXXXXXX.JPEG`.
    tell: called now and then with the number of files seen.

  Raises:
    UserError: absent, unreadable, cut short, empty, or a class without pictures.
  """
  here = f"{flag}={path}"
  if not os.path.exists(path):
    raise UserError(f"{here} does not exist; give a folder or a tar of class folders, or one of ImageNet's tars")
  classes, found, loose, ignored, has_tars = set(), [], [], [], False
  try:
    for count, member in enumerate(_members(path)):
      if count % 1000 == 0:
        tell(count)
      label, _, rest = member.name.partition("/")
      has_tars |= member.what == "class tar"
      if member.what != "file":
        classes.add(label)
      elif not (pictures.has_suffix(member.name) or pictures.is_picture(member.head())):
        ignored.append(member.name)
      elif rest:
        found.append(Picture(member.name, label, member.path, member.offset, member.size))
      else:
        loose.append(member)
  except OSError as error:
    raise UserError(f"{here} cannot be read: {error.filename or path}: {error.strerror}") from None
  kind = "one tar per class, as ImageNet's training tar" if has_tars else "class folders"
  is_flat = not found and any(imagenet.VALIDATION_NAME.fullmatch(m.name) for m in loose)
  if is_flat:
    kind, classes = "ImageNet's validation pictures", set()
    for m in loose:
      if imagenet.VALIDATION_NAME.fullmatch(m.name):
        label = imagenet.validation_label(m.name)
        found.append(Picture(m.name, label, m.path, m.offset, m.size))
      else:
        ignored.append(m.name)
  else:
    ignored += [m.name for m in loose]
  if not found:
    raise UserError(f"{here} holds no pictures ({pictures.NAMES}) in class folders")
  empty = sorted(classes - {p.label for p in found})
  if empty:
    raise UserError(
      f"{here}: {len(empty)} class folders hold no pictures ({pictures.NAMES}), {folders.readable(empty[0])} first;"
      " fill them or take them away"
    )
  found.sort(key=lambda p: p.name)
  for a, b in itertools.pairwise(found):
    if a.name == b.name:
      raise UserError(f"{here} holds {folders.readable(a.name)} twice; take one away")
  note = ""
  if ignored:
    first = folders.readable(min(ignored))
    note = f"{flag}: passed over {len(ignored):,} files that are no pictures in a class folder, {first} first"
  return Source(path, kind, has_tars or is_flat, found, note)


def _members(path: str) -> Iterator[_Member]:
  """Everything that is not hidden; a class's tar as the class folder that it stands for."""
  for member in _in_folder(path) if os.path.isdir(path) else _in_tar(path):
    if any(part.startswith(".") for part in member.name.split("/")):
      continue
    of_class = _TAR_OF_CLASS.fullmatch(member.name) if member.what == "file" else None
    if not of_class:
      yield member
      continue
    yield _Member(of_class[1], member.path, what="class tar")
    for inner in _in_tar(member.path, member.offset, member.size):
      if inner.what == "file" and not inner.name.startswith("."):
        yield dataclasses.replace(inner, name=f"{of_class[1]}/{inner.name}")


def _in_folder(root: str) -> Iterator[_Member]:
  yield from (_Member(name, root, what="folder") for name in folders.folders_in(root))
  odd = {}
  for name, size in storage.walk(root, odd):
    yield _Member(name, os.path.join(root, name), size=size)
  for name, what in odd.items():
    if not folders.is_hidden(name):  # such as an editor's lock, a link to nowhere
      raise UserError(f"{folders.readable(os.path.join(root, name))} is {what}; take it away")


def _in_tar(path: str, begin: int = 0, size: int | None = None) -> Iterator[_Member]:
  """Members of a tar, or of one that lies at bytes `begin` to `begin + size` of another."""
  with open(path, "rb") as file:
    end = os.fstat(file.fileno()).st_size if size is None else begin + size
    file.seek(begin)
    begins_well = False
    try:
      with tarfile.open(fileobj=file, mode="r:") as tar:
        begins_well = True
        while (member := tar.next()) is not None and member.offset_data + member.size <= end:
          tar.members.clear()  # it would keep a million of them
          if member.isdir() or member.isreg():
            name = posixpath.normpath(member.name).lstrip("/")
            yield _Member(name, path, member.offset_data, member.size, "folder" if member.isdir() else "file")
      # tarfile takes a damaged header for the end. The real one is a block of zeros.
      file.seek(tar.offset)
      if member is not None or tar.offset + tarfile.BLOCKSIZE > end or any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("unexpected end of data")
    except tarfile.TarError as error:
      what = "is cut short or damaged" if begins_well else "is no tar, or a compressed one, or cut short"
      where = f" within bytes {begin} to {end}" if size is not None else ""
      raise UserError(f"{path} {what}{where} ({error}); fetch it anew, and give it uncompressed") from None
