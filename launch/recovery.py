"""Takes a run from the request for a slice to the end of training, through preemptions and failures, up to a limit."""

from __future__ import annotations

import dataclasses
import pathlib

from launch import outcomes
from launch.commands import CommandFailed
from launch.failures import Preempted, RequestFailed, Unreachable
from launch.workers import Workers


@dataclasses.dataclass(frozen=True)
class Run:
  """What to train, and on which terms.

  Attributes:
    archive: the packed checkout. Every recovery runs the same code.
    arguments: of training. The work directory is in a bucket, because a slice's disks are deleted with it.
    capacity: "spot", "reserved" or "on_demand".
    retry: the maximum number of recoveries, from preemptions and failures together.
    keep: do not delete the slice at the end.
    wait_minutes: for a slice, each time.
    max_hours: of training, each time.
    logs: gs:// folder to copy logs to, or "".
    copy: arguments of `python -m shufflenet_jax.data.stage`, which each start runs first; or none.
    create_flags: further gcloud flags for the request.
  """

  archive: pathlib.Path | None
  arguments: list[str]
  capacity: str
  retry: int
  keep: bool
  wait_minutes: int
  max_hours: float
  logs: str
  copy: list[str]
  create_flags: list[str]


def bring_up(workers: Workers, run: Run) -> int:
  """Requests a slice, sets it up, trains and deletes it; after a preemption or failure, continues from the checkpoint.

  Whatever happens, no slice of this run is left behind, unless `run.keep`.

  Args:
    workers: of a slice that does not exist yet.
    run: what to train.

  Returns:
    The outcome.

  Raises:
    UserError: a slice of that name exists already, or somebody has deleted it.
    Stopped, CommandFailed: see `Workers`. CommandFailed and RequestFailed are raised only until training has started
      once. After that, everything has worked before, so such a failure is retried, and uses up one recovery.
    StillBilled: the slice could not be deleted.
  """
  request, runner = workers.request, workers.runner
  request.refuse_existing()
  new_slice, recoveries, started = True, 0, False
  with request.deleted_on_error(run.keep):
    while True:
      outcome, new_slice, started = _attempt(workers, run, new_slice, started)
      runner.report(f"{workers.vm.name}: {outcomes.WORDS[outcome]}")
      if outcome in (outcomes.DONE, outcomes.WRONG, outcomes.STOPPED) or recoveries == run.retry:
        break
      recoveries += 1
      runner.report(f"recovery {recoveries} of {run.retry}: " + ("a new slice" if new_slice else "the same slice"))
      if new_slice:
        request.delete()  # before the next request, so that there are never two
    if run.keep:
      runner.report(f"{workers.vm.name} is kept, and billed; {request.remedy()}")
    else:
      request.delete()
  return outcome


def _attempt(workers: Workers, run: Run, new_slice: bool, started: bool) -> tuple[int, bool, bool]:
  """One attempt at training, on a new slice or on the present one.

  Args:
    started: whether training has started in an earlier attempt.

  Returns:
    (the outcome, whether another attempt needs a new slice, whether training has started by now)
  """
  try:
    if new_slice:
      workers.request.create(run.capacity, run.wait_minutes, run.create_flags)
      workers.request.wait_active(run.wait_minutes)
      workers.setup(run.archive)
    else:
      workers.run_on_all(workers.vm.worker("stop", "60"))  # the other workers still wait for the one that failed
    workers.start(run.arguments, run.logs, run.copy)
    started = True
    outcome = workers.watch(run.max_hours)
    # Training that was preempted saves and ends by itself; its slice is about to be taken away.
    return outcome, outcome == outcomes.PREEMPTED, started
  except Preempted:
    return outcomes.PREEMPTED, True, started
  except (Unreachable, CommandFailed, RequestFailed) as error:
    if not (started or isinstance(error, Unreachable)):
      raise
    workers.runner.report(str(error))
    return outcomes.FAILED, True, started
