"""The gcloud commands, as argument lists, and the one place where commands are run or, with --dry_run, printed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from shufflenet_jax.tpu.slices import Slice

CHECKOUT = "shufflenet_jax_checkout"  # folder on the workers, below the home directory
ARCHIVE = f"{CHECKOUT}.tar.gz"


class CommandFailed(Exception):
  """A command's exit status was not 0. Attributes: status; text: what it wrote to stderr; reason: that, in one line."""

  def __init__(self, command: list[str], status: int, text: str):
    self.status, self.text, self.reason = status, text, reason(text)
    super().__init__(f"{' '.join(command[:5])} ... exited with {status}: {self.reason}")

  @property
  def not_found(self) -> bool:
    """Whether gcloud answers that there is no such slice; an unknown project or zone says nothing of the slice."""
    elsewhere = re.search(r"\b(project|zone|location|account)\b[^\n]*\bnot (be )?found", self.text, re.IGNORECASE)
    return not elsewhere and ("NOT_FOUND" in self.text or "was not found" in self.text)


def reason(text: str) -> str:
  """What a program gave as its reason for failing, from what it wrote to stderr, in one line of at most 300 characters.

  That is what follows "ERROR:" (gcloud), "fatal:" (git) or "error:" (kubectl), with the advice behind it, or else the
  last line. Where gcloud only repeats the exit status of ssh or of the remote command, their last line comes first.
  """
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if not lines:
    return "no message"
  first = next((i for i, line in enumerate(lines) if re.match("ERROR:|fatal:|error:|Error ", line)), len(lines) - 1)
  if "exited with return code" in lines[first]:
    first = max(first - 1, 0)
  line = " ".join(" ".join(lines[first:]).split())
  return line if len(line) <= 300 else f"{line[:297]}..."


def escape_what_the_console_cannot_encode() -> None:
  """Or a name with an umlaut could end what is to delete a slice."""
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")


def tell(text: str, stream=None) -> None:
  """Prints while there is somebody to read: a closed terminal or pipe must not end what is to delete a slice."""
  stream = stream or sys.stdout
  try:
    print(text, file=stream, flush=True)
  except OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def quoted(command: list[str]) -> str:
  """A command line for a POSIX shell; of --flag=value, the value alone is quoted."""
  words = []
  for word in command:
    flag, equals, value = word.partition("=")
    words.append(f"{flag}={shlex.quote(value)}" if equals and re.fullmatch(r"--[\w-]+", flag) else shlex.quote(word))
  return " ".join(words)


@dataclasses.dataclass(frozen=True)
class Runner:
  """Runs commands on this machine, never through a shell.

  Attributes:
    dry_run: print them instead, quoted for a POSIX shell.
  """

  dry_run: bool = False

  def say(self, text: str) -> None:
    """Tells of the progress; in a dry run as a comment, so that all of it is a shell script."""
    tell("\n".join(f"# {line}" for line in text.splitlines()) if self.dry_run else text)

  def run(self, command: list[str], show: bool = True, note: str = "", shielded: bool = False, stdin: str = "") -> str:
    """Runs a command to its end; ends it where the launcher itself is interrupted.

    Args:
      command: program and arguments.
      show: pass what it writes on to the user as it comes, besides returning it.
      note: printed behind the command in a dry run.
      shielded: an interrupt at the terminal does not reach it.
      stdin: what it reads.

    Returns:
      Its stdout; "" in a dry run.

    Raises:
      CommandFailed: its exit status is not 0, or there is no such program.
    """
    if self.dry_run:
      tell(quoted(command) + (f"  # {note}" if note else ""))
      if stdin:
        self.say(stdin)
      return ""
    lines = []
    with tempfile.TemporaryFile("w+", errors="replace") as errors, tempfile.TemporaryFile("w+") as given:
      given.write(stdin)
      given.seek(0)
      try:
        process = subprocess.Popen(
          command,
          stdin=given,
          stdout=subprocess.PIPE,
          stderr=errors,
          text=True,
          errors="replace",  # of a log line
          start_new_session=shielded,
        )
      except OSError as error:
        raise CommandFailed(command, 127, f"{command[0]}: {error.strerror}") from None
      try:
        for line in process.stdout:
          lines.append(line)
          if show:
            tell(line.rstrip("\n"))
        status = process.wait()
      except BaseException:
        process.kill()
        raise
      errors.seek(0)
      text = errors.read()
    if status:
      if show:
        tell(text.rstrip("\n"), sys.stderr)
      raise CommandFailed(command, status, text)
    return "".join(lines)

  def attach(self, command: list[str]) -> int:
    """Runs a command with this terminal; returns its exit status.

    Raises:
      CommandFailed: there is no such program.
    """
    if self.dry_run:
      tell(quoted(command))
      return 0
    try:
      return subprocess.run(command).returncode
    except OSError as error:
      raise CommandFailed(command, 127, f"{command[0]}: {error.strerror}") from None


@dataclasses.dataclass(frozen=True)
class TpuVm:
  """A slice by name; its methods give commands and run nothing.

  Attributes:
    name: of both the queued resource and the TPU VM.
    zone, project: where; no project: gcloud's own setting.
    slice: what it consists of.
  """

  name: str
  zone: str
  project: str | None
  slice: Slice

  def _where(self) -> list[str]:
    return [f"--zone={self.zone}"] + ([f"--project={self.project}"] if self.project else [])

  def _queued(self, verb: str, *rest: str) -> list[str]:
    return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self._where(), *rest]

  def create(self, capacity: str, valid_minutes: int, extra: list[str]) -> list[str]:
    """Queues a request.

    Args:
      capacity: "spot", "reserved" or "on_demand".
      valid_minutes: after which the request must not be filled any more, so that nothing is rented with nobody waiting.
      extra: further flags of gcloud's.
    """
    flags = [
      f"--node-id={self.name}",
      f"--accelerator-type={self.slice.accelerator_type}",
      f"--runtime-version={self.slice.generation.runtime_version}",
      f"--valid-until-duration={valid_minutes}m",
    ]
    return self._queued("create", *flags, *([] if capacity == "on_demand" else [f"--{capacity}"]), *extra)

  def describe(self) -> list[str]:
    return self._queued("describe", "--format=json(state)")

  def delete(self) -> list[str]:
    """Deletes the VMs and the request."""
    return self._queued("delete", "--force", "--quiet")

  def describe_node(self) -> list[str]:
    return ["gcloud", "compute", "tpus", "tpu-vm", "describe", self.name, *self._where(), "--format=value(state)"]

  def upload(self, archive: pathlib.Path) -> list[str]:
    return [
      "gcloud", "compute", "tpus", "tpu-vm", "scp", str(archive), f"{self.name}:{ARCHIVE}",
      *self._where(), "--worker=all", "--quiet",
    ]  # fmt: skip

  def ssh(self, command: list[str] | str, worker: str = "all") -> list[str]:
    """Runs a command on one worker or all; a list is quoted, for the worker's shell takes it apart again."""
    command = command if isinstance(command, str) else shlex.join(command)
    return [
      "gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name,
      *self._where(), f"--worker={worker}", f"--command={command}", "--quiet",
    ]  # fmt: skip

  def worker(self, *arguments: str, worker: str = "all") -> list[str]:
    """Calls launch/worker.sh there."""
    return self.ssh(["bash", f"{CHECKOUT}/launch/worker.sh", *arguments], worker)
