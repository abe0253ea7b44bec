"""From a request to a finished run, through preemptions and failures, up to a limit."""

from __future__ import annotations

import pathlib

from launch import outcomes
from launch.gcloud import CommandFailed
from launch.lifecycle import Lifecycle, Preempted, RequestFailed, Unreachable


def bring_up(
  life: Lifecycle, archive: pathlib.Path, arguments: list[str], *, capacity: str, retry: int, keep: bool,
  wait_minutes: int, max_hours: float, logs: str, extra: list[str],
) -> int:  # fmt: skip
  """Requests a slice, sets it up, trains, and deletes it again; after a preemption once more, from the checkpoint.

  Whatever happens, no slice of this run is left behind, unless `keep`.

  Args:
    life: of a slice that does not exist yet.
    archive: the checkout, packed: every recovery runs the same code.
    arguments: of training; --workdir is in a bucket, for the slice's own disks go with it.
    capacity: "spot", "reserved" or "on_demand".
    retry: recoveries at most, from preemptions and failures together.
    keep: leave the slice standing at the end.
    wait_minutes: for a slice, each time.
    max_hours: of training, each time.
    logs: gs:// folder that logs are copied to, or "".
    extra: further flags of gcloud's, for the request.

  Returns:
    The outcome.

  Raises:
    UserError: there is a slice of that name already, or somebody has deleted it.
    Stopped, CommandFailed, StillBilled: see `lifecycle`; the first two only until training has started once, for what
      fails later has worked before, and counts as a failure.
  """
  life.refuse_existing()
  fresh, recoveries, started = True, 0, False
  with life.deleted_on_error(keep):
    while True:
      try:
        if fresh:
          life.create(capacity, wait_minutes, extra)
          life.wait_active(wait_minutes)
          life.setup(archive)
        else:
          life.on_all(life.vm.worker("stop", "60"))  # workers that wait for the one that failed
        life.start(arguments, logs)
        started = True
        outcome, fresh = life.watch(max_hours), False
      except Preempted:
        outcome, fresh = outcomes.PREEMPTED, True
      except (Unreachable, CommandFailed, RequestFailed) as error:
        if not (started or isinstance(error, Unreachable)):
          raise
        life.runner.say(str(error))
        outcome, fresh = outcomes.FAILED, True
      # Training that ended by itself for a preemption: its slice is about to go.
      fresh = fresh or outcome == outcomes.PREEMPTED
      life.runner.say(f"{life.vm.name}: {outcomes.WORDS[outcome]}")
      if outcome in (outcomes.DONE, outcomes.WRONG, outcomes.STOPPED) or recoveries == retry:
        break
      recoveries += 1
      life.runner.say(f"recovery {recoveries} of {retry}: " + ("a new slice" if fresh else "the same slice"))
      if fresh:
        life.delete()  # ahead of the next request, so that there are never two
    if keep:
      life.runner.say(f"{life.vm.name} is kept, and billed; {life.remedy()}")
    else:
      life.delete()
  return outcome
