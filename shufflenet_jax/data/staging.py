"""Copies a dataset to this machine, for example into its memory, and checks the copy.

A copy is made in `TO.incomplete` and renamed to TO once every file is whole, so a folder TO is always a whole copy.
Files are whole or absent, too: each is written under another name and renamed once its size, and in a bucket its
checksum, were compared. A copy that was interrupted continues with the files that are absent.
"""

import json
import os
import sys
import threading
import time
from concurrent import futures
from typing import BinaryIO

from shufflenet_jax import storage
from shufflenet_jax.data.needed_files import NeededFile, NeededFiles
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.progress import ProgressLine, amount, duration

MANIFEST = "staged.json"  # in the copy: where its files come from, with sizes and versions
THREADS = 8  # google-cloud-storage keeps 10 connections open
_FOLDER = "dataset"  # in TO.incomplete, whose own name has to stay while it is locked


def stage(needed: NeededFiles, to: str) -> None:
  """Copies the files that a config reads, unless an earlier start has copied and checked the same ones.

  Prints what is copied, its progress, and at the end one line with size, time and rate.

  Args:
    needed: what to copy.
    to: a local folder that does not exist, or that an earlier call has made.

  Raises:
    UserError: there is no room for the files, or `to` cannot be used.
    RunFailed: the dataset was changed meanwhile, or could not be read now; the same call continues.
  """
  _check_target(needed, to)
  incomplete = f"{to}.incomplete"
  storage.make_folder(incomplete)
  with storage.locked(incomplete):
    if _is_whole_copy(needed, to):
      print(f"{to} is whole: {amount(needed.size)} were copied by an earlier start; nothing to copy", flush=True)
    else:
      _copy(needed, incomplete, to)
    storage.remove_folder(incomplete)


def _check_target(needed: NeededFiles, to: str) -> None:
  if to.startswith("gs://"):
    raise UserError(f"--to={to} must be a folder of this machine, for example /dev/shm/dataset")
  if f"{needed.folder}/".startswith(f"{to}/") or to.startswith(f"{needed.folder}/"):
    raise UserError(f"--to={to} and --config.data.data_dir={needed.folder} must not be within each other")
  if storage.is_file(to):
    raise UserError(f"--to={to} is a file; give a folder that does not exist yet")
  if storage.list_folder(to, missing_ok=True) and not storage.is_file(storage.join(to, MANIFEST)):
    raise UserError(f"--to={to} holds other files; give a folder that does not exist yet")


def _description(needed: NeededFiles) -> dict:
  """What `MANIFEST` holds."""
  return {"source": needed.folder, "files": {file.name: [file.size, file.version] for file in needed.files}}


def _was_made_of(needed: NeededFiles, folder: str) -> bool:
  try:
    return json.loads(storage.read_text(storage.join(folder, MANIFEST))) == _description(needed)
  except (FileNotFoundError, ValueError):
    return False


def _wrong_files(needed: NeededFiles, folder: str) -> list[NeededFile]:
  """The files that are absent in a copy or have another size there."""
  sizes = dict(storage.walk(folder))
  return [file for file in needed.files if sizes.get(file.name) != file.size]


def _is_whole_copy(needed: NeededFiles, to: str) -> bool:
  """Whether `to` holds these files; a copy of others, or one that somebody has damaged, is removed."""
  if not storage.is_folder(to):
    return False
  if _was_made_of(needed, to):
    wrong = _wrong_files(needed, to)
    if not wrong:
      return True
    print(f"{len(wrong)} files of the copy in {to} are not whole, {wrong[0].name} first: copying it again", flush=True)
  else:
    print(f"{to} holds a copy of another dataset, or of an earlier state of this one: copying anew", flush=True)
  storage.remove_folder(to, marker=MANIFEST)
  return False


def _copy(needed: NeededFiles, incomplete: str, to: str) -> None:
  """Copies the files into a folder in `incomplete` and moves it to `to`."""
  folder = storage.join(incomplete, _FOLDER)
  if not _was_made_of(needed, folder):
    storage.remove_folder(folder)
    storage.write_text(storage.join(folder, MANIFEST), json.dumps(_description(needed)))
  known = {MANIFEST, *(file.name for file in needed.files)}
  for name in [name for name, _ in storage.walk(folder) if name not in known]:  # of a process that was killed
    storage.remove_file(storage.join(folder, name))
  missing = _wrong_files(needed, folder)
  size = sum(file.size for file in missing)
  _check_room(needed, size, incomplete, to)
  print(f"copying {amount(size)} in {len(missing):,} files from {needed.folder} to {to}", flush=True)
  began = time.monotonic()
  _copy_files(needed.folder, missing, folder)
  seconds = time.monotonic() - began
  if wrong := _wrong_files(needed, folder):
    raise RunFailed(f"{len(wrong)} files were not copied whole, {wrong[0].name} first; run the same command again")
  storage.move_folder(folder, to)
  more = f" ({amount(needed.size)} with those of an earlier start)" if size < needed.size else ""
  rate = size / max(seconds, 1e-9) / 1e9
  print(f"copied {amount(size)} in {seconds:.0f} s, {rate:.2f} GB/s, checked{more}", flush=True)


def _check_room(needed: NeededFiles, size: int, incomplete: str, to: str) -> None:
  free = storage.free_bytes(incomplete)
  if size > free:
    storage.remove_folder(incomplete)
    raise UserError(
      f"the dataset has {amount(needed.size)}, {amount(size)} of them to be copied, and {storage.parent(to)} has"
      f" {amount(free)} of free space;"
      " train from the bucket, without --stage_data; or use hosts with more memory, or pictures that"
      " data.prepare --short_side=256 has made smaller"
    )


class _Stopped(Exception):
  """Another thread has failed."""


class _CountedFile:
  """An open file that counts what is written, and stops when another thread has failed."""

  def __init__(self, file: BinaryIO, path: str, stop: threading.Event):
    self._file, self._path, self._stop = file, path, stop
    self.written = 0

  def write(self, content: bytes) -> int:
    if self._stop.is_set():
      raise _Stopped
    self.written += len(content)
    try:
      return self._file.write(content)
    except OSError as error:  # otherwise it would be reported as a failure to read the source
      raise storage.translate_error(error, self._path, "written") from error

  def seek(self, position: int) -> int:
    self.written = position
    return self._file.seek(position)

  def truncate(self) -> int:
    return self._file.truncate()


class _Copies:
  """The copies of several files, made in threads.

  Attributes:
    stop: set when one of them has failed.
  """

  def __init__(self, source: str, folder: str):
    self._source, self._folder = source, folder
    self._files: list[_CountedFile] = []
    self.stop = threading.Event()

  @property
  def written(self) -> int:
    """Bytes so far."""
    return sum(file.written for file in list(self._files))

  def make(self, file: NeededFile) -> None:
    """Copies one file, whole or not at all."""
    if self.stop.is_set():
      raise _Stopped
    path = storage.join(self._source, file.name)
    with storage.new_file(storage.join(self._folder, file.name)) as partial:
      try:
        with open(partial, "wb") as out:
          counted = _CountedFile(out, partial, self.stop)
          self._files.append(counted)
          storage.copy_into(path, counted, file.size, file.version)
      except FileNotFoundError:
        raise RunFailed(f"{path} was removed or replaced while it was copied; run the same command again") from None
      size = os.path.getsize(partial)
      if size != file.size:
        raise RunFailed(
          f"{path} had {file.size:,} bytes when it was listed, and {size:,} were copied; run the same command again"
        )


def _copy_files(source: str, files: list[NeededFile], folder: str) -> None:
  """Copies files in threads, because a bucket gives a single reader only a part of what it can give to many."""
  copies, total = _Copies(source, folder), sum(file.size for file in files)
  progress, began = ProgressLine(sys.stdout, terminal_seconds=0.2), time.monotonic()
  with futures.ThreadPoolExecutor(THREADS) as pool:
    pending = {pool.submit(copies.make, file) for file in files}
    try:
      while pending:
        finished, pending = futures.wait(pending, timeout=0.2, return_when=futures.FIRST_EXCEPTION)
        for future in finished:
          future.result()
        progress.show(_progress_text(copies.written, total, time.monotonic() - began))
    except BaseException:
      copies.stop.set()
      pool.shutdown(cancel_futures=True)
      raise
    finally:
      progress.clear()


def _progress_text(written: int, total: int, seconds: float) -> str:
  rate = written / seconds
  left = f", {duration((total - written) / rate)} left" if rate else ""
  return f"copied {amount(written)} of {amount(total)}, {rate / 1e9:.2f} GB/s{left}"
