"""How a command can end, other than well: wrong input, a failure that a restart may cure, or a stop on request.

The three are siblings, so `except UserError` means wrong input and never hides a lost host or a preemption. To let all
of them pass, or to print whichever it is, catch `CommandEnded`.
"""

# Exit statuses; launch/outcomes.py defines how the launchers react to each.
FAILED = 1
WRONG = 2
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells report a process that Ctrl-C ended


class CommandEnded(Exception):
  """The command ends here; the message explains why to its user, in one line.

  Attributes:
    status: the exit status of the process.
  """

  status: int

  @property
  def line(self) -> str:
    """The message without line breaks, which may come from a file's name or another library's message."""
    return " ".join(str(self).split())


class UserError(CommandEnded):
  """Wrong input: retrying without a change cannot help. The message names the value and the remedy."""

  status = WRONG


class RunFailed(CommandEnded):
  """A failure that may not happen again when the command is restarted; training then resumes from its checkpoint."""

  status = FAILED


class Preempted(CommandEnded):
  """Stopped on request. The state is saved, and the same command resumes from there."""

  status = PREEMPTED


class Interrupted(Preempted):
  """Stopped by Ctrl-C. The state is saved, and the same command resumes from there."""

  status = INTERRUPTED
