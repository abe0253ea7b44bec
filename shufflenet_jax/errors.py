"""How a command can end other than well: what a user can mend, what another start may mend, a stop on request."""

FAILED = 1  # exit statuses; launch/outcomes.py says what follows from each
WRONG = 2
PREEMPTED = 75  # EX_TEMPFAIL
INTERRUPTED = 130  # 128 + SIGINT, as shells report what Ctrl-C ends


class UserError(Exception):
  """Wrong input. The message is one line: what is wrong, the value, and what would do."""

  status = WRONG


class RunFailed(UserError):
  """Something broke that may go better when the run is started again, which goes on from its newest checkpoint."""

  status = FAILED


class Preempted(UserError):
  """Stopped on request; what was trained is saved, and the same command goes on from there."""

  status = PREEMPTED


class Interrupted(Preempted):
  """Stopped by Ctrl-C; what was trained is saved, and the same command goes on from there."""

  status = INTERRUPTED
