"""Compares compiled programs with and without shuffle: what the shuffle moves, computes and costs."""

import collections
import dataclasses

import jax
import jax.numpy as jnp

from shufflenet_jax import tasks
from shufflenet_jax.models import build
from shufflenet_jax.models.channel_shuffle import SHUFFLE_SCOPE
from shufflenet_jax.models.shufflenet import stage_channels
from shufflenet_jax.tpu import hlo

# A shuffle counts as free up to this multiple of the cycles without shuffle, plus an allowance for each unit's kernel,
# whose shuffling takes a few instructions of at least 1,800 cycles each.
FREE_RATIO = 1.05
KERNEL_CYCLES = 10_000
# The compiler may compute a batch in several parts. With up to this many, the parts' arrays still count as activations.
MAX_BATCH_PARTS = 4


@dataclasses.dataclass(frozen=True)
class Report:
  """A comparison of the compiled programs. "Moves" are copies, transposes and reshapes of activations.

  Attributes:
    copies_extra: moves in excess of the program without shuffle, summed over layers.
    offenders: layer -> (moves with shuffle, moves without), for layers with more moves than without shuffle.
    shuffled_activations: names of activation-sized instructions in the name scope of the shuffle.
    work_extra: kind -> passes over activations, or products, in excess of the program without shuffle.
    all_reduces: in the step.
    all_reduces_wanted: how many there should be.
    exchanges: other communication between devices in the step.
    dynamic_dimensions: of all arrays; on a TPU, arrays whose size is known only at run time are slow.
    cycles: estimated, per device and step.
    cycles_reference: the same for the reference.
    cycles_no_shuffle: the same without shuffle.
    on_activations: `cycles` of instructions that read or write an activation.
    on_activations_no_shuffle: the same without shuffle.
    units: number of the network's units, each of which has a kernel to shuffle.
    hbm_bytes: memory that the program needs on a device.
    hbm_limit: memory of a device, bytes.
  """

  copies_extra: int
  offenders: dict[str, tuple[int, int]]
  shuffled_activations: list[str]
  work_extra: dict[str, int]
  all_reduces: int
  all_reduces_wanted: int
  exchanges: int
  dynamic_dimensions: int
  cycles: int
  cycles_reference: int
  cycles_no_shuffle: int
  on_activations: int
  on_activations_no_shuffle: int
  units: int
  hbm_bytes: int
  hbm_limit: int

  def conditions(self) -> list[tuple[bool, str]]:
    """(whether it holds, a description with its figures) of each condition."""
    extra = ", ".join(f"{n} {what}" for what, n in self.work_extra.items()) or "0 passes, products or gathers"
    return [
      (self.copies_extra == 0, f"{self.copies_extra} copies, transposes or reshapes of activations for the shuffle"),
      (
        not self.shuffled_activations,
        f"{len(self.shuffled_activations)} activation-sized instructions in the shuffle's name scope",
      ),
      # A shuffle without moves could still be computed, for example by a matrix product.
      (not self.work_extra, f"{extra} of activations more than without shuffle"),
      self._communication(),
      (not self.dynamic_dimensions, f"{self.dynamic_dimensions} dynamic dimensions of arrays"),
      self._cost(),
      self._cost_on_activations(),
      self._memory(),
    ]

  def _communication(self) -> tuple[bool, str]:
    holds = self.all_reduces == self.all_reduces_wanted and not self.exchanges
    counts = f"{self.all_reduces} all-reduces, {self.all_reduces_wanted} wanted"
    return holds, f"{counts}; {self.exchanges} other exchanges, 0 wanted"

  def _cost(self) -> tuple[bool, str]:
    ratio = self.cycles / self.cycles_no_shuffle
    limit = FREE_RATIO + self.units * KERNEL_CYCLES / self.cycles_no_shuffle
    reference = f"{self.cycles / self.cycles_reference:.2f} x reference ({self.cycles_reference / 1e6:.2f}M)"
    no_shuffle = f"{ratio:.3f} x without shuffle ({self.cycles_no_shuffle / 1e6:.2f}M; {limit:.3f} at most)"
    holds = self.cycles <= self.cycles_reference and ratio <= limit
    return holds, f"{self.cycles / 1e6:.2f}M estimated cycles: {reference}, {no_shuffle}"

  def _cost_on_activations(self) -> tuple[bool, str]:
    ratio = self.on_activations / self.on_activations_no_shuffle
    text = f"{self.on_activations / 1e6:.2f}M of them on activations: {ratio:.3f} x without shuffle"
    return self.on_activations <= FREE_RATIO * self.on_activations_no_shuffle, f"{text} ({FREE_RATIO} at most)"

  def _memory(self) -> tuple[bool, str]:
    used, limit = (number / 2**30 for number in (self.hbm_bytes, self.hbm_limit))
    return self.hbm_bytes <= self.hbm_limit, f"{used:.2f} of {limit:g} GiB of device memory"

  @property
  def holds(self) -> bool:
    return all(holds for holds, _ in self.conditions())


def compare(own, no_shuffle, reference, activations, units: int, all_reduces_wanted: int, hbm_limit: int) -> Report:
  """Compares three programs, each a `compile.Program`.

  Args:
    own: the program to check.
    no_shuffle: the same without shuffle.
    reference: the same under lowering=reference.
    activations: an `hlo.Activations`.
    units: number of the network's units.
    all_reduces_wanted: 1 in training, 0 in inference.
    hbm_limit: bytes of a device's memory.
  """
  moves, moves_without = (
    collections.Counter(i.layer for i in hlo.moves(p.instructions, activations)) for p in (own, no_shuffle)
  )
  offenders = {layer: (n, moves_without[layer]) for layer, n in moves.items() if n > moves_without[layer]}
  work, work_without = (hlo.work(p.instructions, activations) for p in (own, no_shuffle))
  return Report(
    copies_extra=sum(n - before for n, before in offenders.values()),
    offenders=offenders,
    shuffled_activations=[i.name for i in own.instructions if SHUFFLE_SCOPE in i.op_name and i in activations],
    work_extra=dict(work - work_without),  # the difference of Counters has only positive counts
    all_reduces=len(hlo.all_reduces(own.instructions)),
    all_reduces_wanted=all_reduces_wanted,
    exchanges=len(hlo.exchanges(own.instructions)),
    dynamic_dimensions=hlo.dynamic_dimensions(own.text),
    cycles=hlo.cycles(own.instructions),
    cycles_reference=hlo.cycles(reference.instructions),
    cycles_no_shuffle=hlo.cycles(no_shuffle.instructions),
    on_activations=hlo.cycles(own.instructions, activations),
    on_activations_no_shuffle=hlo.cycles(no_shuffle.instructions, activations),
    units=units,
    hbm_bytes=own.hbm_bytes,
    hbm_limit=hbm_limit,
  )


def activations(config, batch: int, mode: str):
  """The sizes of a network's activations, as `hlo.Activations`.

  Args:
    config: of a ShuffleNet, or of a detector with one.
    batch: images per device and micro-batch.
    mode: "train" or "infer".
  """
  backbone = build.network(config.model)
  groups, stages = backbone.groups, stage_channels(backbone.groups, backbone.scale)
  size = config.data.image_size
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  parameters = set()
  for kernel in jax.tree.leaves(jax.eval_shape(tasks.network(config).init, jax.random.key(0), images)["params"]):
    parameters |= {kernel.size, kernel.size * groups}
    if kernel.ndim == 4 and kernel.shape[2] == 1:  # depthwise; it may be computed with a diagonal kernel
      parameters.add(kernel.size * kernel.shape[3])
  # If an activation and a parameter have the same size, it counts as an activation's: better a false alarm than a miss.
  channels = [c for f in stages for c in (f, f // 4, f // groups, f // 4 // groups)]
  positions = [batch * n for n in tasks.class_of(config).positions(config, mode)]
  mistakable = {n * c for n in positions for c in channels}
  return hlo.Activations(min(stages) // 4 * min(positions) // MAX_BATCH_PARTS, frozenset(parameters - mistakable))
