"""Sets up the workers (VMs) of a slice, and starts, watches and stops training on them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
import re
import time

from launch import outcomes
from launch.commands import CommandFailed, Runner
from launch.failures import Preempted, Stopped, Unreachable, one_line
from launch.gcloud import ARCHIVE, CHECKOUT, TpuVm
from launch.slice_request import ATTEMPTS, OFFLINE_POLLS, SliceRequest
from shufflenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Workers:
  """All workers of one slice.

  Attributes:
    request: of the slice.
  """

  request: SliceRequest

  @property
  def vm(self) -> TpuVm:
    return self.request.vm

  @property
  def runner(self) -> Runner:
    return self.request.runner

  def run_on_all(self, command: list[str], show: bool = True) -> str:
    """Runs a command on all workers, and again if a worker cannot be reached.

    Args:
      command: from `TpuVm`.
      show: print its output as it arrives.

    Returns:
      The command's stdout.

    Raises:
      Preempted: the slice is gone.
      UserError: there is no slice of that name: it was deleted.
      Unreachable: one or more workers do not answer; the message names them.
      Stopped: Google Cloud does not answer, for an hour if this process requested the slice, otherwise three times.
      CommandFailed: the command itself fails.
    """
    attempts = silences = 0
    while attempts < ATTEMPTS:
      try:
        return self.runner.run(command, show)
      except CommandFailed as error:
        failed = error
      gone = self.request.is_gone()
      if gone:
        raise Preempted
      attempts, silences = (attempts + 1, 0) if gone is False else (attempts, silences + 1)
      if silences == (OFFLINE_POLLS if self.request.ours else ATTEMPTS):
        raise Stopped(f"no answer from Google Cloud: {one_line(failed)}")
      if attempts < ATTEMPTS:
        when = "" if gone is False else " when Google Cloud answers"
        self.runner.report(f"{one_line(failed)}; trying again{when}")
        time.sleep(self.request.poll_seconds)
    hosts = self.vm.slice.hosts
    reasons = {str(i): reason for i in range(hosts) if (reason := self._why_unreachable(i))}
    if reasons:
      first = list(reasons.values())[0]
      raise Unreachable(f"worker {', '.join(reasons)} of {hosts} (counted from 0) cannot be reached over ssh: {first}")
    raise failed

  def _why_unreachable(self, worker: int) -> str:
    """gcloud's or ssh's reason why a worker does not answer; "" if it does."""
    try:
      self.runner.run(self.vm.ssh("true", str(worker)), show=False)
    except CommandFailed as error:
      return error.reason
    return ""

  def upload(self, archive: pathlib.Path) -> None:
    """Replaces the checkout on all workers."""
    self.run_on_all(self.vm.upload(archive))
    self.run_on_all(self.vm.ssh(f"rm -rf {CHECKOUT} && mkdir {CHECKOUT} && tar -xzf {ARCHIVE} -C {CHECKOUT}"))

  def setup(self, archive: pathlib.Path) -> None:
    """Uploads the checkout, installs the requirements and checks that JAX sees all chips."""
    s = self.vm.slice
    self.runner.report(f"setting up {s.hosts} workers ...")
    self.upload(archive)
    self.run_on_all(self.vm.worker("setup"))
    self.run_on_all(self.vm.worker("check", str(s.chips), str(s.hosts)))

  def start(self, arguments: list[str], logs: str, copy: list[str]) -> None:
    """Starts training in the background on all workers.

    Args:
      arguments: of `python -m shufflenet_jax.train`.
      logs: gs:// folder to copy logs to, or "".
      copy: of `python -m shufflenet_jax.data.stage`, which then runs first; or none.
    """
    self.run_on_all(self.vm.worker("start", logs, *copy, "--", *arguments))

  def states(self) -> tuple[list[str], str]:
    """(each worker's state as `outcomes.of_workers` takes it, the longest of the workers' newest log lines).

    Raises:
      Unreachable: a worker did not answer.
      UserError: the slice is not set up.
    """
    try:
      text = self.run_on_all(self.vm.worker("report"), show=False)
    except CommandFailed as error:
      # The whole path is matched, because ssh also reports "No such file", for a missing key for example.
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
    """Polls the workers until the run has ended; returns its outcome.

    Raises:
      Preempted, Unreachable: as `run_on_all`.
      Stopped: `max_hours` are over, and training has been stopped with a checkpoint.
    """
    began, shown = time.monotonic(), None
    while True:
      states, line = self.states()
      counts = ", ".join(f"{n} {state}" for state, n in collections.Counter(states).items())
      if (counts, line) != shown and not self.runner.dry_run:
        self.runner.report(f"{self.vm.name}: {counts}; {line}")
        shown = counts, line
      outcome = outcomes.of_workers(states)
      if outcome in outcomes.BAD:
        self._show_failure(states)
      if outcome != outcomes.RUNNING:
        return outcome
      if time.monotonic() - began >= max_hours * 3600:
        self.stop()
        raise Stopped(f"not done after --max_hours={max_hours:g}; the newest checkpoint is kept")
      time.sleep(self.request.poll_seconds)

  def _show_failure(self, states: list[str]) -> None:
    """Prints the end of a failed worker's log, which is deleted with the slice."""
    worker = next((i for i, s in enumerate(states) if outcomes.of_workers([s]) in outcomes.BAD), 0)
    with contextlib.suppress(CommandFailed):
      self.runner.report(f"the log of worker {worker} ends with:")
      self.runner.run(self.vm.worker("log", "30", worker=str(worker)))

  def stop(self, grace_seconds: int = 120) -> None:
    """Stops training on all workers, with a checkpoint if one can be saved within `grace_seconds`."""
    self.run_on_all(self.vm.worker("stop", str(grace_seconds)))
