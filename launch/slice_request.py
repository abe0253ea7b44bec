"""Requests a slice, follows its state, and deletes it, even if a later step fails."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time

from launch.commands import NO_SUCH_PROGRAM, CommandFailed, Runner, quoted
from launch.failures import Preempted, RequestFailed, StillBilled, Stopped, one_line
from launch.gcloud import TpuVm
from launch.interrupts import interrupts_delayed
from shufflenet_jax.errors import UserError

# States of a queued resource or a TPU VM that has been taken away.
GONE = ("SUSPENDING", "SUSPENDED", "PREEMPTED", "DELETING", "TERMINATED", "STOPPED")
ATTEMPTS = 3  # for commands that use the network
OFFLINE_POLLS = 120  # polls without an answer from Google Cloud before giving up: an hour


@dataclasses.dataclass
class SliceRequest:
  """One slice, from the request to the deletion. Nothing is stored beyond the life of the process.

  Attributes:
    vm: the slice's gcloud commands.
    runner: runs them.
    poll_seconds: time between two polls of the slice's state.
    ours: whether this process requested the slice, and so has to delete it.
    active_since: when the slice was first seen ACTIVE, s; None before that and after the deletion.
    chip_hours: used so far, by slices that have been deleted.
    requested: whether this process has requested this slice before.
  """

  vm: TpuVm
  runner: Runner
  poll_seconds: float = 30
  ours: bool = False
  active_since: float | None = None
  chip_hours: float = 0
  requested: bool = False

  def state(self) -> tuple[str, str] | None:
    """(state, reason or "") of the queued resource; None if there is none of that name."""
    try:
      text = self.runner.run(self.vm.describe(), show=False)
    except CommandFailed as error:
      if error.not_found:
        return None
      raise
    try:
      state = json.loads(text or "{}").get("state", {})
    except ValueError:
      raise CommandFailed(self.vm.describe(), 0, f"no JSON: {text.strip()!r}") from None
    return state.get("state", "UNKNOWN"), state.get("failedData", {}).get("error", {}).get("message", "")

  def refuse_existing(self) -> None:
    """Raises a UserError if a slice of that name exists: it belongs to somebody else or to another run."""
    if self.runner.dry_run:
      self.runner.run(self.vm.describe(), note="continues only if no slice has that name")
    elif found := self.state():
      raise UserError(f"--name={self.vm.name} exists already ({found[0]}); choose another, or {self.remedy()}")

  def create(self, capacity: str, wait_minutes: int, extra: list[str]) -> None:
    """Requests the slice. An interrupt takes effect only once the request has been answered.

    Args:
      capacity: "spot", "reserved" or "on_demand".
      wait_minutes: the request expires after this time.
      extra: further gcloud flags.

    Raises:
      CommandFailed: the request was refused.
      RequestFailed: a slice of that name exists, although this process deleted it several times.
      StillBilled: a slice of that name exists, although there was none before.
    """
    s, again = self.vm.slice, self.requested
    self.runner.report(
      f"requesting {s.accelerator_type} ({capacity}): {s.chips} chips on {s.hosts} hosts, {s.machine_type}"
    )
    # Set before the request is sent, because it may be accepted and its answer lost.
    self.ours = self.requested = True
    for _ in range(ATTEMPTS):
      try:
        with interrupts_delayed():
          self.runner.run(self.vm.create(capacity, wait_minutes, extra), shielded=True)
        return
      except CommandFailed as error:
        if "ALREADY_EXISTS" not in error.text:
          raise
      if not again:
        self.ours = False
        raise StillBilled(
          f"{self.vm.name} did not exist a moment ago: unless somebody else requested it, "
          f"this request was accepted; {self.remedy()}"
        )
      # The deletion of the previous slice has not finished, or the answer to this request was lost.
      self.delete()
      self.ours = True
      time.sleep(self.poll_seconds)
    raise RequestFailed(f"{self.vm.name} still exists after {ATTEMPTS} deletions")

  def wait_active(self, wait_minutes: int) -> None:
    """Waits until the slice is ACTIVE.

    Raises:
      Preempted: it was taken away at once.
      RequestFailed: Google Cloud did not provide a slice.
      Stopped: `wait_minutes` are over, or Google Cloud does not answer.
    """
    if self.runner.dry_run:
      note = f"every {self.poll_seconds:g} s until ACTIVE, for at most {wait_minutes} min"
      self.runner.run(self.vm.describe(), note=note)
      return
    began, shown, errors = time.monotonic(), None, 0
    while True:
      try:
        found, errors = self.state(), 0
      except CommandFailed as error:
        errors += 1
        if errors == OFFLINE_POLLS:
          raise Stopped(f"the state of {self.vm.name} cannot be read: {error}") from None
        found = ("UNKNOWN", "")
      state, reason = found or ("FAILED", "the request no longer exists")
      minutes = (time.monotonic() - began) / 60
      if state != shown:
        self.runner.report(f"{self.vm.name}: {state}, after {minutes:.0f} min" + (f" ({reason})" if reason else ""))
        shown = state
      if state == "ACTIVE":
        self.active_since = time.monotonic()
        return
      if state in GONE:
        raise Preempted
      if state == "FAILED":
        raise RequestFailed(f"the request for {self.vm.name} failed: {reason or 'no reason given'}")
      if minutes >= wait_minutes:
        raise Stopped(f"{self.vm.name} is not ACTIVE after --wait_minutes={wait_minutes}")
      time.sleep(self.poll_seconds)

  def is_gone(self) -> bool | None:
    """Whether the slice has been taken away; None if Google Cloud does not answer.

    Both the request and the VM are asked, because the VM's state changes earlier.

    Raises:
      UserError: there is no request of that name. A preemption leaves the request, so somebody has deleted it.
    """
    try:
      found = self.state()
    except CommandFailed as error:
      if error.status == NO_SUCH_PROGRAM:
        raise
      return None
    if found is None:
      raise UserError(f"there is no slice named {self.vm.name} in {self.vm.zone}")
    if found[0] in GONE:
      return True
    try:
      return self.runner.run(self.vm.describe_node(), show=False).strip() in GONE
    except CommandFailed as error:
      return error.not_found

  def delete(self) -> None:
    """Deletes the slice and the request, in several attempts, because it is billed as long as it exists.

    Raises:
      StillBilled: it may still exist.
    """
    done = "deleted"
    with interrupts_delayed(discard=True):
      for attempt in range(ATTEMPTS):
        try:
          self.runner.run(self.vm.delete(), show=False, shielded=True)
          break
        except CommandFailed as error:
          if error.not_found:
            done = "there is no"
            break
          self.runner.report(f"deleting {self.vm.name} failed: {error}")
          if attempt + 1 == ATTEMPTS:
            raise StillBilled(f"{self.vm.name} may still be running, and billed; {self.remedy()}") from None
          time.sleep(min(self.poll_seconds, 30))
      self.ours = False
      if self.active_since is not None:
        self.chip_hours += self.vm.slice.chips * (time.monotonic() - self.active_since) / 3600
        self.active_since = None
      if not self.runner.dry_run:
        self.runner.report(f"{done} {self.vm.name}")

  def remedy(self) -> str:
    """The command that deletes the slice, for a message."""
    return f"delete it: {quoted(self.vm.delete())}"

  @contextlib.contextmanager
  def deleted_on_error(self, keep: bool):
    """Deletes the slice if anything inside the block fails, unless `keep`."""
    try:
      yield
    except BaseException as error:
      if self.ours and keep:
        self.runner.report(f"{self.vm.name} is kept, and billed; {self.remedy()}")
      elif self.ours and not isinstance(error, StillBilled):
        cause = "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error)
        self.runner.report(f"deleting {self.vm.name}: {cause}")
        self.delete()
      raise
