"""The one place where the launchers run commands or, with --dry_run, print them."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tempfile

_MAX_REASON_CHARACTERS = 300
NO_SUCH_PROGRAM = 127  # the exit status that shells use


class CommandFailed(Exception):
  """A command's exit status was not 0.

  Attributes:
    status: the exit status; `NO_SUCH_PROGRAM` if the command could not be started.
    text: everything that the command wrote to stderr.
    reason: the same in one line; see `reason`.
  """

  def __init__(self, command: list[str], status: int, text: str):
    self.status, self.text, self.reason = status, text, reason(text)
    super().__init__(f"{' '.join(command[:5])} ... exited with {status}: {self.reason}")

  @property
  def not_found(self) -> bool:
    """Whether gcloud answered that the slice does not exist. An unknown project or zone does not count as that."""
    elsewhere = re.search(r"\b(project|zone|location|account)\b[^\n]*\bnot (be )?found", self.text, re.IGNORECASE)
    return not elsewhere and ("NOT_FOUND" in self.text or "was not found" in self.text)


def reason(text: str) -> str:
  """Extracts from a program's stderr why it failed, as one line of at most 300 characters.

  The reason is everything from "ERROR:" (gcloud), "fatal:" (git) or "error:" (kubectl) to the end, which includes the
  program's advice; without such a marker it is the last line. When gcloud only repeats the exit status of ssh or of the
  remote command, the line before it, which has the reason, is added.
  """
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if not lines:
    return "no message"
  first = next((i for i, line in enumerate(lines) if re.match("ERROR:|fatal:|error:|Error ", line)), len(lines) - 1)
  if "exited with return code" in lines[first]:
    first = max(first - 1, 0)
  line = " ".join(" ".join(lines[first:]).split())
  return line if len(line) <= _MAX_REASON_CHARACTERS else f"{line[: _MAX_REASON_CHARACTERS - 3]}..."


def escape_unencodable_output() -> None:
  """Escapes characters that the console cannot encode: an exception here could keep a slice from being deleted."""
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")


def print_line(text: str, stream=None) -> None:
  """Prints if somebody still reads: a closed terminal or pipe must not stop the process that deletes the slice."""
  stream = stream or sys.stdout
  try:
    print(text, file=stream, flush=True)
  except OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def quoted(command: list[str]) -> str:
  """A command line for a POSIX shell. In --flag=value, only the value is quoted."""
  words = []
  for word in command:
    flag, equals, value = word.partition("=")
    words.append(f"{flag}={shlex.quote(value)}" if equals and re.fullmatch(r"--[\w-]+", flag) else shlex.quote(word))
  return " ".join(words)


@dataclasses.dataclass(frozen=True)
class Runner:
  """Runs commands on this machine, never through a shell.

  Attributes:
    dry_run: print the commands, quoted for a POSIX shell, and run none.
  """

  dry_run: bool = False

  def report(self, text: str) -> None:
    """Prints progress. In a dry run it is printed as a comment, so that the whole output is a shell script."""
    print_line("\n".join(f"# {line}" for line in text.splitlines()) if self.dry_run else text)

  def run(self, command: list[str], show: bool = True, note: str = "", shielded: bool = False, stdin: str = "") -> str:
    """Runs a command and waits for its end. The command is killed if the launcher is interrupted meanwhile.

    Args:
      command: program and arguments.
      show: also print the command's output line by line as it arrives.
      note: in a dry run, a comment to print after the command.
      shielded: Ctrl-C in the terminal does not reach the command.
      stdin: text that the command reads from its stdin.

    Returns:
      The command's stdout; "" in a dry run.

    Raises:
      CommandFailed: the exit status is not 0, or there is no such program.
    """
    if self.dry_run:
      print_line(quoted(command) + (f"  # {note}" if note else ""))
      if stdin:
        self.report(stdin)
      return ""
    with tempfile.TemporaryFile("w+", errors="replace") as errors, tempfile.TemporaryFile("w+") as given:
      given.write(stdin)
      given.seek(0)
      status, output = _run(command, given, errors, show, shielded)
      errors.seek(0)
      text = errors.read()
    if status:
      if show:
        print_line(text.rstrip("\n"), sys.stderr)
      raise CommandFailed(command, status, text)
    return output

  def attach(self, command: list[str]) -> int:
    """Runs a command that uses this terminal, and returns its exit status.

    Raises:
      CommandFailed: there is no such program.
    """
    if self.dry_run:
      print_line(quoted(command))
      return 0
    try:
      return subprocess.run(command).returncode
    except OSError as error:
      raise _no_such_program(command, error) from None


def _run(command: list[str], stdin, stderr, show: bool, shielded: bool) -> tuple[int, str]:
  """Runs a command with the given files; returns (exit status, stdout)."""
  try:
    process = subprocess.Popen(
      command,
      stdin=stdin,
      stdout=subprocess.PIPE,
      stderr=stderr,
      text=True,
      errors="replace",  # a log line may hold any bytes
      start_new_session=shielded,
    )
  except OSError as error:
    raise _no_such_program(command, error) from None
  lines = []
  try:
    for line in process.stdout:
      lines.append(line)
      if show:
        print_line(line.rstrip("\n"))
    return process.wait(), "".join(lines)
  except BaseException:
    process.kill()
    raise


def _no_such_program(command: list[str], error: OSError) -> CommandFailed:
  return CommandFailed(command, NO_SUCH_PROGRAM, f"{command[0]}: {error.strerror}")
