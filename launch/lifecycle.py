"""What can be done with a slice, step by step; who deletes it when a step fails."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import pathlib
import re
import time

from launch import outcomes
from launch.gcloud import ARCHIVE, CHECKOUT, CommandFailed, Runner, TpuVm, quoted
from launch.interrupts import interrupts_held
from shufflenet_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
GONE = ("SUSPENDING", "SUSPENDED", "PREEMPTED", "DELETING", "TERMINATED", "STOPPED")
ATTEMPTS = 3  # of what goes over the network
OFFLINE_POLLS = 120  # looks at a slice that get no answer from Google Cloud, ahead of giving up: an hour


class Preempted(Exception):
  """The slice has been taken away."""


class Unreachable(Exception):
  """A worker does not answer, though the slice is there."""


class Stopped(Exception):
  """The launcher gives up: what a retry won't mend, or a limit."""


class RequestFailed(Stopped):
  """There was no slice to be had."""


class StillBilled(Exception):
  """A slice that should be deleted could not be."""


@dataclasses.dataclass
class Lifecycle:
  """One slice, from the request for it to its end. Holds nothing that outlives the process.

  Attributes:
    vm, runner: see `gcloud`.
    poll_seconds: between two looks at the slice's state.
    ours: whether it was requested by this process, which then answers for it.
    active_since: time it was seen ACTIVE first, s.
    chip_hours: used so far, of slices that are deleted again.
    requested: whether this process has requested it before.
  """

  vm: TpuVm
  runner: Runner
  poll_seconds: float = 30
  ours: bool = False
  active_since: float | None = None
  chip_hours: float = 0
  requested: bool = False

  # The request.

  def state(self) -> tuple[str, str] | None:
    """(state, reason or "") of the queued resource; None where there is none of that name."""
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
    """Raises a UserError where the name is taken: that slice is somebody's."""
    if self.runner.dry_run:
      self.runner.run(self.vm.describe(), note="goes on only where there is none of that name")
    elif found := self.state():
      raise UserError(f"--name={self.vm.name} exists already ({found[0]}); choose another, or {self.remedy()}")

  def create(self, capacity: str, wait_minutes: int, extra: list[str]) -> None:
    """Requests the slice; an interrupt waits until the request has been answered.

    Raises:
      CommandFailed: refused.
      StillBilled: there is a slice of that name which was not there before.
    """
    s, again = self.vm.slice, self.requested
    self.runner.say(
      f"requesting {s.accelerator_type} ({capacity}): {s.chips} chips on {s.hosts} hosts, {s.machine_type}"
    )
    self.ours = self.requested = True  # from here on: a request may have been taken though its answer was lost
    for _ in range(ATTEMPTS):
      try:
        with interrupts_held():
          self.runner.run(self.vm.create(capacity, wait_minutes, extra), shielded=True)
        return
      except CommandFailed as error:
        if "ALREADY_EXISTS" not in error.text:
          raise
      if not again:
        self.ours = False
        raise StillBilled(
          f"{self.vm.name} was not there a moment ago: if it is nobody else's, this request was taken; {self.remedy()}"
        )
      # The one that this process deleted is not quite gone, or the answer to this request was lost.
      self.delete()
      self.ours = True
      time.sleep(self.poll_seconds)
    raise RequestFailed(f"{self.vm.name} exists again and again")

  def wait_active(self, wait_minutes: int) -> None:
    """Waits for ACTIVE.

    Raises:
      Preempted: it was taken away at once.
      RequestFailed: no slice.
      Stopped: the time is up, or there is no answer.
    """
    if self.runner.dry_run:
      self.runner.run(
        self.vm.describe(), note=f"every {self.poll_seconds:g} s until ACTIVE, {wait_minutes} min at most"
      )
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
      state, reason = found or ("FAILED", "the request is gone")
      minutes = (time.monotonic() - began) / 60
      if state != shown:
        self.runner.say(f"{self.vm.name}: {state}, after {minutes:.0f} min" + (f" ({reason})" if reason else ""))
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

  def delete(self) -> None:
    """Deletes the slice and the request; goes on trying, for it is billed.

    Raises:
      StillBilled: it may still be there.
    """
    done = "deleted"
    with interrupts_held(forget=True):
      for attempt in range(ATTEMPTS):
        try:
          self.runner.run(self.vm.delete(), show=False, shielded=True)
          break
        except CommandFailed as error:
          if error.not_found:
            done = "there is no"
            break
          self.runner.say(f"deleting {self.vm.name} did not work: {error}")
          if attempt + 1 == ATTEMPTS:
            raise StillBilled(f"{self.vm.name} may still be running, and billed; {self.remedy()}") from None
          time.sleep(min(self.poll_seconds, 30))
      self.ours = False
      if self.active_since is not None:
        self.chip_hours += self.vm.slice.chips * (time.monotonic() - self.active_since) / 3600
        self.active_since = None
      if not self.runner.dry_run:
        self.runner.say(f"{done} {self.vm.name}")

  def remedy(self) -> str:
    """The command that deletes the slice, for a message."""
    return f"delete it: {quoted(self.vm.delete())}"

  @contextlib.contextmanager
  def deleted_on_error(self, keep: bool):
    """Whatever goes wrong inside, the slice does not stay behind, unless `keep`."""
    try:
      yield
    except BaseException as error:
      if self.ours and keep:
        self.runner.say(f"{self.vm.name} is kept, and billed; {self.remedy()}")
      elif self.ours and not isinstance(error, StillBilled):
        self.runner.say(
          f"deleting {self.vm.name}: " + ("interrupted" if isinstance(error, KeyboardInterrupt) else _line(error))
        )
        self.delete()
      raise

  # The workers.

  def on_all(self, command: list[str], show: bool = True) -> str:
    """Runs a command on all workers, again where one cannot be reached.

    Raises:
      Preempted: the slice is gone.
      UserError: there is no slice of that name: it was deleted.
      Unreachable: a worker does not answer, which is named.
      Stopped: Google Cloud does not answer: for an hour, where this process answers for the slice.
      CommandFailed: the command itself fails.
    """
    attempts = silences = 0
    while attempts < ATTEMPTS:
      try:
        return self.runner.run(command, show)
      except CommandFailed as error:
        failed = error
      gone = self.is_gone()
      if gone:
        raise Preempted
      attempts, silences = (attempts + 1, 0) if gone is False else (attempts, silences + 1)
      if silences == (OFFLINE_POLLS if self.ours else ATTEMPTS):
        raise Stopped(f"no answer from Google Cloud: {_line(failed)}")
      if attempts < ATTEMPTS:
        self.runner.say(f"{_line(failed)}; once more" + ("" if gone is False else ", when Google Cloud answers"))
        time.sleep(self.poll_seconds)
    hosts = self.vm.slice.hosts
    silent = {str(i): words for i in range(hosts) if (words := self._silence(i))}
    if silent:
      words = list(silent.values())[0]
      raise Unreachable(f"worker {', '.join(silent)} of {hosts} (counted from 0) cannot be reached over ssh: {words}")
    raise failed

  def _silence(self, worker: int) -> str:
    """Why a worker does not answer, as gcloud and ssh tell it; "" where it does."""
    try:
      self.runner.run(self.vm.ssh("true", str(worker)), show=False)
    except CommandFailed as error:
      return error.reason
    return ""

  def is_gone(self) -> bool | None:
    """Whether the slice has been taken away, by what the request says or, sooner, the VM; None for no answer.

    Raises:
      UserError: there is no request of that name. One that is taken away stays: somebody has deleted this.
    """
    try:
      found = self.state()
    except CommandFailed as error:
      if error.status == 127:
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

  def upload(self, archive: pathlib.Path) -> None:
    """Copies the checkout to all workers, in place of the one there."""
    self.on_all(self.vm.upload(archive))
    self.on_all(self.vm.ssh(f"rm -rf {CHECKOUT} && mkdir {CHECKOUT} && tar -xzf {ARCHIVE} -C {CHECKOUT}"))

  def setup(self, archive: pathlib.Path) -> None:
    """Checkout, requirements, and a look at whether JAX sees all chips."""
    s = self.vm.slice
    self.runner.say(f"setting up {s.hosts} workers ...")
    self.upload(archive)
    self.on_all(self.vm.worker("setup"))
    self.on_all(self.vm.worker("check", str(s.chips), str(s.hosts)))

  def start(self, arguments: list[str], logs: str) -> None:
    """Starts training on all workers, detached."""
    self.on_all(self.vm.worker("start", logs, *arguments))

  def show_failure(self, states: list[str]) -> None:
    """The end of the log of a worker that failed, which goes with the slice."""
    worker = next((i for i, s in enumerate(states) if outcomes.of_workers([s]) in outcomes.BAD), 0)
    with contextlib.suppress(CommandFailed):
      self.runner.say(f"the log of worker {worker} ends with:")
      self.runner.run(self.vm.worker("log", "30", worker=str(worker)))

  def worker_states(self) -> tuple[list[str], str]:
    """What each worker says (see `outcomes.of_workers`), and the newest line of one's log."""
    try:
      text = self.on_all(self.vm.worker("report"), show=False)
    except CommandFailed as error:
      # ssh, too, may find some file missing, such as a key.
      if re.search(rf"{CHECKOUT}/launch/worker\.sh'?: No such file", error.text):
        raise UserError(f"{self.vm.name} is not set up: launch/tpu_vm setup") from None
      raise
    hosts = self.vm.slice.hosts
    if self.runner.dry_run:
      return ["exited 0"] * hosts, ""
    found = [line[len("state: ") :].partition(" | ")[::2] for line in text.splitlines() if line.startswith("state: ")]
    if len(found) != hosts:
      raise Unreachable(f"{len(found)} of {hosts} workers answered")
    return [state for state, _ in found], max((line for _, line in found), key=len)

  def watch(self, max_hours: float) -> int:
    """Looks at the run until it has ended; its outcome.

    Raises:
      Preempted, Unreachable: as `on_all`.
      Stopped: `max_hours` are over; training has been stopped with a checkpoint.
    """
    began, shown = time.monotonic(), None
    while True:
      states, line = self.worker_states()
      counts = ", ".join(f"{n} {state}" for state, n in collections.Counter(states).items())
      if (counts, line) != shown and not self.runner.dry_run:
        self.runner.say(f"{self.vm.name}: {counts}; {line}")
        shown = counts, line
      outcome = outcomes.of_workers(states)
      if outcome in outcomes.BAD:
        self.show_failure(states)
      if outcome != outcomes.RUNNING:
        return outcome
      if time.monotonic() - began >= max_hours * 3600:
        self.stop()
        raise Stopped(f"not done after --max_hours={max_hours:g}; the newest checkpoint stands")
      time.sleep(self.poll_seconds)

  def stop(self, grace_seconds: int = 120) -> None:
    """Ends training on all workers, with a checkpoint where there is time."""
    self.on_all(self.vm.worker("stop", str(grace_seconds)))


def _line(error: BaseException) -> str:
  return str(error) or type(error).__name__.lower()
