"""Why a command can end early: wrong input, a failure that a restart may cure, or a stop on request.

The three are siblings, so `except UserError` means wrong input and never hides a lost host or a preemption. To treat
all three alike, for instance to re-raise or to print them, catch their base class, `CommandEnded`.
"""

# Exit statuses; launch/outcomes.py defines how the launchers react to each.
FAILED = 1
WRONG = 2
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells report a process that Ctrl-C ended


class CommandEnded(Exception):
  """The command ends here; the message tells the user why, in one line.

  Attributes:
    status: the exit status of the process.
  """

  status: int

  @property
  def line(self) -> str:
    """The message on one line: a file's name or another library's message in it may have brought line breaks."""
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
