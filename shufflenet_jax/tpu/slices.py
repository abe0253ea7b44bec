"""The hosts, chips and clocks of Cloud TPU slices. Standard library only, because the launchers run on Python 3.9."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from shufflenet_jax.errors import UserError


class MachineType(NamedTuple):
  """A kind of TPU VM.

  Attributes:
    name: GKE's.
    vcpus: of the VM.
    memory_gb: of the VM.
  """

  name: str
  vcpus: int
  memory_gb: int


@dataclasses.dataclass(frozen=True)
class Generation:
  """One generation of TPUs.

  Source: cloud.google.com/tpu/docs and cloud.google.com/kubernetes-engine/docs/concepts/tpus.

  Attributes:
    name: libtpu's; the part of a topology before the colon.
    prefix: of the accelerator type; the number of TensorCores follows it.
    cores_per_chip: TensorCores of a chip. In all these generations, a chip is one JAX device.
    runtime_version: image of the TPU VMs.
    clock_ghz: derived, not measured: the published peak bf16 rate divided by the multiply-adds per cycle of all matrix
      units.
    gke_accelerator: value of GKE's node label.
    machine_types: chips per VM -> the VM. Memory and vCPUs: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus,
      and the pages of v4, v5e, v5p and v6e in cloud.google.com/tpu/docs.
    topologies: chips -> shape, for the slices that have an accelerator type.
  """

  name: str
  prefix: str
  cores_per_chip: int
  runtime_version: str
  clock_ghz: float
  gke_accelerator: str
  machine_types: dict[int, MachineType]
  topologies: dict[int, str]


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}

GENERATIONS = {
  generation.name: generation
  for generation in (
    Generation(
      "v4", "v4", 2, "tpu-ubuntu2204-base", 1.05, "tpu-v4-podslice",
      {4: MachineType("ct4p-hightpu-4t", 240, 407)}, _CUBES,
    ),
    Generation(
      "v5e", "v5litepod", 1, "v2-alpha-tpuv5-lite", 1.5, "tpu-v5-lite-podslice",
      {
        1: MachineType("ct5lp-hightpu-1t", 24, 48),
        4: MachineType("ct5lp-hightpu-4t", 112, 192),
        8: MachineType("ct5lp-hightpu-8t", 224, 384),
      }, _FLAT,
    ),
    Generation(
      "v5p", "v5p", 2, "v2-alpha-tpuv5", 1.75, "tpu-v5p-slice",
      {4: MachineType("ct5p-hightpu-4t", 208, 448)}, _CUBES,
    ),
    Generation(
      "v6e", "v6e", 1, "v2-alpha-tpuv6e", 1.75, "tpu-v6e-slice",
      {
        1: MachineType("ct6e-standard-1t", 44, 176),
        4: MachineType("ct6e-standard-4t", 180, 720),
        8: MachineType("ct6e-standard-8t", 180, 1440),
      }, _FLAT,
    ),
  )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that are rented together.

  Attributes:
    generation: of the chips.
    shape: for example "4x4" or "2x2x1".
  """

  generation: Generation
  shape: str

  @property
  def chips(self) -> int:
    return math.prod(map(int, self.shape.split("x")))

  @property
  def chips_per_host(self) -> int:
    """Chips per VM. Slices larger than the largest VM consist of VMs with 4 chips."""
    sizes = self.generation.machine_types
    return self.chips if self.chips in sizes else 4

  @property
  def hosts(self) -> int:
    return max(self.chips // self.chips_per_host, 1)

  @property
  def machine_type(self) -> str:
    return self.generation.machine_types[self.chips_per_host].name

  @property
  def vcpus_per_host(self) -> int:
    return self.generation.machine_types[self.chips_per_host].vcpus

  @property
  def memory_gb_per_host(self) -> int:
    return self.generation.machine_types[self.chips_per_host].memory_gb

  @property
  def accelerator_type(self) -> str:
    return f"{self.generation.prefix}-{self.chips * self.generation.cores_per_chip}"


def accelerator_types() -> dict[str, Slice]:
  """Every accelerator type, and its slice."""
  slices = [Slice(g, shape) for g in GENERATIONS.values() for shape in g.topologies.values()]
  return {s.accelerator_type: s for s in slices}


def from_accelerator_type(name: str) -> Slice:
  """The slice of an accelerator type such as "v5litepod-16".

  Raises:
    UserError: there is no such accelerator type.
  """
  known = accelerator_types()
  if name not in known:
    same = [k for k in known if k.split("-")[0] == name.split("-")[0]] or ["v4-8", "v5litepod-16", "v5p-8", "v6e-8"]
    raise UserError(f"--type={name} is not an accelerator type; for example {', '.join(same)}")
  return known[name]


def from_topology(name: str) -> Slice:
  """The slice of a topology such as "v5e:4x4".

  Raises:
    UserError: `GENERATIONS` lacks its generation.
  """
  generation, _, shape = name.partition(":")
  if generation not in GENERATIONS or not all(n.isdigit() and int(n) for n in shape.split("x")):
    raise UserError(f"--topology={name} is not known; for example v4:2x2x1, v5e:2x2, v5e:4x4, v5p:2x2x1, v6e:2x2")
  return Slice(GENERATIONS[generation], shape)
