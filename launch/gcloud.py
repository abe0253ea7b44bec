"""The gcloud commands for a slice, as argument lists."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex

from shufflenet_jax.tpu.slices import Slice

CHECKOUT = "shufflenet_jax_checkout"  # folder in the workers' home directory
ARCHIVE = f"{CHECKOUT}.tar.gz"


@dataclasses.dataclass(frozen=True)
class TpuVm:
  """A slice by name. The methods return commands and run nothing.

  Attributes:
    name: of both the queued resource and the TPU VM.
    zone: of Google Cloud.
    project: of Google Cloud; None for gcloud's own setting.
    slice: the slice's chips and hosts.
  """

  name: str
  zone: str
  project: str | None
  slice: Slice

  def _location(self) -> list[str]:
    return [f"--zone={self.zone}"] + ([f"--project={self.project}"] if self.project else [])

  def _queued_resource(self, verb: str, *rest: str) -> list[str]:
    return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self._location(), *rest]

  def create(self, capacity: str, valid_minutes: int, extra: list[str]) -> list[str]:
    """Queues a request for the slice.

    Args:
      capacity: "spot", "reserved" or "on_demand".
      valid_minutes: the request expires after this time, so that no slice is rented when nobody waits for it any more.
      extra: further gcloud flags.
    """
    flags = [
      f"--node-id={self.name}",
      f"--accelerator-type={self.slice.accelerator_type}",
      f"--runtime-version={self.slice.generation.runtime_version}",
      f"--valid-until-duration={valid_minutes}m",
    ]
    return self._queued_resource("create", *flags, *([] if capacity == "on_demand" else [f"--{capacity}"]), *extra)

  def describe(self) -> list[str]:
    """Prints the request's state as JSON."""
    return self._queued_resource("describe", "--format=json(state)")

  def delete(self) -> list[str]:
    """Deletes the VMs and the request."""
    return self._queued_resource("delete", "--force", "--quiet")

  def describe_node(self) -> list[str]:
    """Prints the TPU VM's state."""
    return ["gcloud", "compute", "tpus", "tpu-vm", "describe", self.name, *self._location(), "--format=value(state)"]

  def upload(self, archive: pathlib.Path) -> list[str]:
    """Copies an archive to the home directory of all workers."""
    return [
      "gcloud", "compute", "tpus", "tpu-vm", "scp", str(archive), f"{self.name}:{ARCHIVE}",
      *self._location(), "--worker=all", "--quiet",
    ]  # fmt: skip

  def ssh(self, command: list[str] | str, worker: str = "all") -> list[str]:
    """Runs a command on one worker or on all. A list is quoted, because the worker's shell splits it again."""
    command = command if isinstance(command, str) else shlex.join(command)
    return [
      "gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name,
      *self._location(), f"--worker={worker}", f"--command={command}", "--quiet",
    ]  # fmt: skip

  def worker(self, *arguments: str, worker: str = "all") -> list[str]:
    """Runs launch/worker.sh on one worker or on all."""
    return self.ssh(["bash", f"{CHECKOUT}/launch/worker.sh", *arguments], worker)
