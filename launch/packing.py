"""Packs the commit to run, before anything that costs money is requested."""

from __future__ import annotations

import argparse
import pathlib
import re

from launch import names
from launch.commands import NO_SUCH_PROGRAM, CommandFailed, Runner
from shufflenet_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
_GIT = ["git", "-C", str(ROOT)]


def pack(flags: argparse.Namespace, training: list[str], runner: Runner, folder: str) -> pathlib.Path:
  """Packs the commit that the flags choose into an archive, which it returns.

  Args:
    flags: of a command that copies the checkout: name, commit, allow_dirty.
    training: arguments of training, whose config has to be in the commit.
    runner: runs git.
    folder: where to write the archive.

  Raises:
    UserError: uncommitted changes, no such commit, one without the config's file, or another failure of git.
  """
  commit = _commit(flags, runner)
  config = (names.flag_value(training, "config") or "").partition(":")[0]
  if config and not config.startswith("/"):
    try:
      runner.run([*_GIT, "cat-file", "-e", f"{commit}:./{config}"], show=False)
    except CommandFailed as error:
      if not re.search("does not exist in|exists on disk, but not in", error.text):
        raise UserError(f"--config={config} cannot be looked up in {commit}: {error.reason}") from None
      raise UserError(f"--config={config} is not a file of the commit to run ({commit}): commit it") from None
  archive = pathlib.Path(folder, f"{flags.name}.tar.gz")
  note = "of the commit that `stash create` printed, if any" if flags.allow_dirty and not flags.commit else ""
  runner.run([*_GIT, "archive", "--format=tar.gz", f"--output={archive}", commit], note=note)
  return archive


def _commit(flags: argparse.Namespace, runner: Runner) -> str:
  """The commit to run."""
  commit = flags.commit or "HEAD"
  try:
    runner.run([*_GIT, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"], show=False)
  except CommandFailed as error:
    if error.status == NO_SUCH_PROGRAM:
      raise
    if "Needed a single revision" not in error.text:  # the folder has another owner, or is no repository, ...
      raise UserError(f"--commit={commit} cannot be looked up in {ROOT}: {error.reason}") from None
    raise UserError(f"--commit={commit} is not a commit of {ROOT}") from None
  if flags.commit:
    return commit
  if flags.allow_dirty:
    # Without this, `stash create` fails, silently, if files were touched but none has changed.
    runner.run([*_GIT, "update-index", "-q", "--refresh"], show=False)
    # A commit of the working tree that belongs to no branch; git prints "" if nothing has changed.
    return runner.run([*_GIT, "stash", "create"], show=False).strip() or "HEAD"
  if changes := runner.run([*_GIT, "status", "--porcelain"], show=False, note="must print nothing"):
    n = len(changes.splitlines())
    raise UserError(f"{n} uncommitted changes would not be run: commit them, or give --allow_dirty or --commit")
  return commit
