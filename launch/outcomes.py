"""The outcomes of a run: the exit statuses of training and of the launchers, and what follows from each."""

from __future__ import annotations

# FAILED: another attempt may succeed; retried, up to the limit. WRONG: wrong input or another failure that a retry
# would not fix; never retried. PREEMPTED: training stopped with a checkpoint and should be started again.
from shufflenet_jax.errors import FAILED, PREEMPTED, WRONG

DONE = 0
RUNNING = 3  # only of the command `status`: the run has not ended
STILL_BILLED = 4  # the launcher could not delete a slice: the user has to
STOPPED = 5  # by `tpu_vm stop`
BAD = (FAILED, WRONG)

WORDS = {
  DONE: "done",
  FAILED: "failed",
  WRONG: "failed for a reason that a retry would not fix",
  RUNNING: "running",
  STILL_BILLED: "a slice may still be running, and billed",
  PREEMPTED: "preempted",
  STOPPED: "stopped",
}


def of_status(status: int) -> int:
  """The outcome that a training process's exit status means."""
  return status if status in (DONE, WRONG, PREEMPTED) else FAILED


def of_workers(states: list[str]) -> int:
  """The outcome of a run, from the states of its workers.

  Args:
    states: "running"; "exited N" with an exit status; "lost", a process that ended without one (the VM restarted);
      "idle", no run was ever started; "stopped", on request, possibly with more words after it.
  """
  ended = {of_status(int(s.split()[1])) for s in states if s.startswith("exited ")}
  if "lost" in states or "idle" in states:
    ended.add(FAILED)
  for outcome in (WRONG, FAILED):  # one failed worker decides, because the others only stop as a consequence
    if outcome in ended:
      return outcome
  stopped = any(s.startswith("stopped") for s in states)
  if "running" in states or not (ended or stopped):
    return RUNNING
  if stopped:
    return STOPPED
  return PREEMPTED if PREEMPTED in ended else DONE
