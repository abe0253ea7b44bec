"""How a run, and the launcher with it, can end: exit statuses, and what follows from each."""

from __future__ import annotations

# What training ends with. FAILED may well go better another time: retried up to the limit. WRONG is wrong input, or
# whatever else a retry won't mend: never retried. PREEMPTED: stopped with a checkpoint, to be run again.
from shufflenet_jax.errors import FAILED, PREEMPTED, WRONG

DONE = 0
RUNNING = 3  # `tpu_vm status` only: not ended yet
STOPPED = 5  # by `tpu_vm stop`
BAD = (FAILED, WRONG)
STILL_BILLED = 4  # the launcher could not delete a slice: somebody has to

WORDS = {
  DONE: "done",
  FAILED: "failed",
  WRONG: "failed for a reason that a retry won't mend",
  RUNNING: "running",
  STILL_BILLED: "a slice may still be running, and billed",
  PREEMPTED: "preempted",
  STOPPED: "stopped",
}


def of_status(status: int) -> int:
  """The outcome that a training process's exit status stands for."""
  return status if status in (DONE, WRONG, PREEMPTED) else FAILED


def of_workers(states: list[str]) -> int:
  """The outcome of a run from what each of its workers says.

  Args:
    states: "running"; "exited N" with an exit status; "lost", a process that is gone without one (the VM restarted);
      "idle", no run was ever started; "stopped", on request, perhaps with more words behind.
  """
  ended = {of_status(int(s.split()[1])) for s in states if s.startswith("exited ")}
  if "lost" in states or "idle" in states:
    ended.add(FAILED)
  for outcome in (WRONG, FAILED):  # one of them decides: the others only stop because of it
    if outcome in ended:
      return outcome
  stopped = any(s.startswith("stopped") for s in states)
  if "running" in states or not (ended or stopped):
    return RUNNING
  if stopped:
    return STOPPED
  return PREEMPTED if PREEMPTED in ended else DONE
