"""Whether the channel shuffle costs nothing on a TPU: compiles a config's step without one, and reads the HLO.

    python -m shufflenet_jax.tpu.check --config=configs/imagenet.py:scale=1.0,groups=3 --topology=v5e:2x4 \\
        [--mode=infer] [--config.model.lowering=reference] [--dump_hlo=DIR] [--json]

Compiles three programs: the config's own, the same without shuffle, and the same under lowering=reference; about a
minute each for a 1x train step on two cores. Exits with 1 where a condition does not hold. Cycles are the compiler's
estimate, not a measurement.
"""

import collections
import dataclasses
import json
import pathlib
import sys
import tempfile
import time

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  cli.define_config()
  flags.DEFINE_string("topology", "v5e:2x4", "TPU slice to compile for; config.batch_size divides over its devices.")
  flags.DEFINE_enum("mode", "train", ("train", "infer"), "The train step, or uint8 images to logits.")
  cli.define_path("dump_hlo", None, "Directory for the optimised HLO of each compiled program.")
  flags.DEFINE_bool("json", False, "Print one JSON object in place of the report.")
  cli.require("config")

FREE = 1.05  # how many times the estimate without shuffle still counts as free
KERNEL_CYCLES = 10_000  # a unit, beyond that: shuffling a kernel takes a few instructions of 1,800 each, however small
PARTS = 4  # a batch may be computed in so many parts: what is as large as one counts as an activation
SMALLEST_BATCH = 32  # a device; with fewer, activations are no larger than what is computed of parameters


@dataclasses.dataclass(frozen=True)
class Report:
  """What the compiled programs show.

  Attributes:
    copies_extra: copies, transposes and reshapes of activations beyond those without shuffle, summed over layers.
    offenders: layer -> (moves with shuffle, moves without), where there are more with it.
    shuffled_activations: names of activation-sized instructions that carry the shuffle's scope.
    work_extra: passes over activations and products of them beyond those without shuffle.
    all_reduces, all_reduces_wanted: in the step.
    exchanges: whatever else devices send each other in it.
    cycles, cycles_reference, cycles_no_shuffle: estimated, a device and step.
    on_activations, on_activations_no_shuffle: of them, those of instructions that take or make an activation.
    units: of the network, each of which has a kernel to shuffle.
    hbm_bytes, hbm_limit: of a device.
  """

  copies_extra: int
  offenders: dict[str, tuple[int, int]]
  shuffled_activations: list[str]
  work_extra: dict[str, int]
  all_reduces: int
  all_reduces_wanted: int
  exchanges: int
  cycles: int
  cycles_reference: int
  cycles_no_shuffle: int
  on_activations: int
  on_activations_no_shuffle: int
  units: int
  hbm_bytes: int
  hbm_limit: int

  def conditions(self) -> list[tuple[bool, str]]:
    """(whether it holds, in words) of each condition."""
    reference = f"{self.cycles / self.cycles_reference:.2f} x reference ({self.cycles_reference / 1e6:.2f}M)"
    times = self.cycles / self.cycles_no_shuffle
    without = f"{times:.3f} x without shuffle ({self.cycles_no_shuffle / 1e6:.2f}M; {self._most:.3f} at most)"
    activations = f"{self.on_activations / 1e6:.2f}M of them on activations"
    activations_times = f"{self.on_activations / self.on_activations_no_shuffle:.3f} x without shuffle"
    extra = ", ".join(f"{n} {what}" for what, n in self.work_extra.items()) or "0 passes, products or gathers"
    gib = 2**30
    return [
      (self.copies_extra == 0, f"{self.copies_extra} copies, transposes or reshapes of activations for the shuffle"),
      (not self.shuffled_activations, f"{len(self.shuffled_activations)} activation-sized instructions in its scope"),
      # A shuffle that moves nothing could still be computed, by a matrix product for one.
      (not self.work_extra, f"{extra} of activations more than without shuffle"),
      (
        self.all_reduces == self.all_reduces_wanted and not self.exchanges,
        f"{self.all_reduces} all-reduces, {self.all_reduces_wanted} wanted; {self.exchanges} other exchanges, 0 wanted",
      ),
      (
        self.cycles <= self.cycles_reference and times <= self._most,
        f"{self.cycles / 1e6:.2f}M estimated cycles: {reference}, {without}",
      ),
      (
        self.on_activations <= FREE * self.on_activations_no_shuffle,
        f"{activations}: {activations_times} ({FREE} at most)",
      ),
      (
        self.hbm_bytes <= self.hbm_limit,
        f"{self.hbm_bytes / gib:.2f} of {self.hbm_limit / gib:g} GiB of device memory",
      ),
    ]

  @property
  def _most(self) -> float:
    return FREE + self.units * KERNEL_CYCLES / self.cycles_no_shuffle

  @property
  def holds(self) -> bool:
    return all(holds for holds, _ in self.conditions())


def compare(own, no_shuffle, reference, activations, units: int, all_reduces_wanted: int, hbm_limit: int) -> Report:
  """A report from three `compile.Program`s.

  Args:
    own, no_shuffle, reference: the program in question, without shuffle, and under lowering=reference.
    activations: an `hlo.Activations`.
    units: of the network.
    all_reduces_wanted: 1 in training, 0 in inference.
    hbm_limit: bytes of a device's memory.
  """
  from shufflenet_jax.models.channel_shuffle import SHUFFLE_SCOPE
  from shufflenet_jax.tpu import hlo

  moves, moves_without = (
    collections.Counter(i.layer for i in hlo.moves(p.instructions, activations)) for p in (own, no_shuffle)
  )
  offenders = {layer: (n, moves_without[layer]) for layer, n in moves.items() if n > moves_without[layer]}
  work, work_without = (hlo.work(p.instructions, activations) for p in (own, no_shuffle))
  return Report(
    copies_extra=sum(n - before for n, before in offenders.values()),
    offenders=offenders,
    shuffled_activations=[i.name for i in own.instructions if SHUFFLE_SCOPE in i.op_name and i in activations],
    work_extra=dict(work - work_without),  # of a Counter: what is above 0
    all_reduces=len(hlo.all_reduces(own.instructions)),
    all_reduces_wanted=all_reduces_wanted,
    exchanges=len(hlo.exchanges(own.instructions)),
    cycles=hlo.cycles(own.instructions),
    cycles_reference=hlo.cycles(reference.instructions),
    cycles_no_shuffle=hlo.cycles(no_shuffle.instructions),
    on_activations=hlo.cycles(own.instructions, activations),
    on_activations_no_shuffle=hlo.cycles(no_shuffle.instructions, activations),
    units=units,
    hbm_bytes=own.hbm_bytes,
    hbm_limit=hbm_limit,
  )


def activations(model, image_size: int, batch: int):
  """The `hlo.Activations` of a network.

  Args:
    model: a `ShuffleNetV1`.
    image_size: pixels a side.
    batch: images a device and micro-batch.
  """
  import jax
  import jax.numpy as jnp

  from shufflenet_jax.models.shufflenet import stage_channels
  from shufflenet_jax.tpu import hlo

  groups, stages = model.groups, stage_channels(model.groups, model.scale)
  sides = [-(-image_size // 2**i) for i in (2, 3, 4, 5)]  # ahead of Stage 2, behind each stage
  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  parameters = set()
  for kernel in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), images)["params"]):
    parameters |= {kernel.size, kernel.size * groups}
    if kernel.ndim == 4 and kernel.shape[2] == 1:  # depthwise, as a diagonal kernel
      parameters.add(kernel.size * kernel.shape[3])
  # Where an activation happens to have a parameter's size, it stays one: rather a false alarm than none.
  channels = [c for f in stages for c in (f, f // 4, f // groups, f // 4 // groups)]
  mistakable = {batch * side * side * c for side in sides for c in channels}
  return hlo.Activations(batch * min(stages) // 4 * sides[-1] ** 2 // PARTS, frozenset(parameters - mistakable))


def check(config, topology_name: str, mode: str, dump_hlo: str | None = None, say=print) -> Report:
  """Compiles the three programs for a topology and compares them.

  Args:
    config: of a ShuffleNet.
    topology_name: as "v5e:2x4".
    mode: "train" or "infer".
    dump_hlo: directory for the programs' text.
    say: is told of the progress.

  Raises:
    UserError: an unknown topology, another network, a batch that does not divide or does not fit.
  """
  from shufflenet_jax.config import settings
  from shufflenet_jax.distributed import mesh
  from shufflenet_jax.models import build
  from shufflenet_jax.tpu import topology
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_step

  if config.model.network != "shufflenet_v1":
    raise UserError(f"config.model.network={config.model.network} has no channel shuffle; choose shufflenet_v1")
  if config.model.shuffle == "none":
    raise UserError("config.model.shuffle=none leaves no shuffle to check; choose paper or release")
  settings.check(config, training=True)
  devices = topology.devices(topology_name)
  mesh.check_batch_size("config.batch_size", config.batch_size, len(devices))
  at_once = len(devices) * (mesh.micro_batches(config, len(devices)) if mode == "train" else 1)
  if config.batch_size < SMALLEST_BATCH * at_once:
    raise UserError(
      f"config.batch_size={config.batch_size} is too small to tell activations from kernels: "
      f"{SMALLEST_BATCH * at_once} or more on {topology_name}"
    )
  folder = pathlib.Path(dump_hlo) if dump_hlo else None
  if folder:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
      raise UserError(f"--dump_hlo={dump_hlo} cannot be written: {error.strerror}") from None
  model = build.network(config.model)
  wanted = {
    "own": model,
    "no_shuffle": model.clone(shuffle="none"),
    "reference": model.clone(lowering="reference"),
  }
  programs = {}
  for name, variant in wanted.items():
    if same := next((done for done in programs if wanted[done] == variant), None):
      programs[name] = programs[same]
    else:
      say(f"compiling {mode} step for {topology_name}: {name} ...")
      began = time.monotonic()
      try:
        programs[name] = compile_step(variant, config, devices, mode)
      except OutOfMemory as error:
        if name != "own":
          raise UserError(f"the step under {name} does not fit {topology_name}: {error}") from None
        raise UserError(_remedy(config, devices, topology_name, mode, model, error, say)) from None
      say(f"  {time.monotonic() - began:.0f} s")
    if folder:
      (folder / f"{name}.hlo.txt").write_text(programs[name].text)
  if folder:
    say(f"HLO of each program in {folder}/")
  return compare(
    **programs,
    activations=activations(model, config.data.image_size, programs["own"].batch),
    units=sum(model.repeats),
    all_reduces_wanted=1 if mode == "train" else 0,
    hbm_limit=topology.hbm_bytes(topology_name),
  )


def _remedy(config, devices, topology_name, mode, model, error, say) -> str:
  """Says by how much a batch is too large, and the largest that is not, found by compiling."""
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_step

  unit = len(devices) * ((config.batch_norm_group or config.accumulate_steps) if mode == "train" else 1)
  fits, too_large = 0, config.batch_size // unit
  # Memory is about proportional to the batch, so the first guess is near.
  guess = int(too_large * error.limit / error.used)
  smaller = config.copy_and_resolve_references()
  while too_large - fits > max(too_large // 16, 1):
    guess = min(max(guess, fits + 1), too_large - 1)
    smaller.batch_size = guess * unit
    say(f"  does not fit; trying batch_size={smaller.batch_size} ...")
    try:
      compile_step(model, smaller, devices, mode)
      fits = guess
    except OutOfMemory:
      too_large = guess
    guess = (fits + too_large) // 2
  over = (error.used - error.limit) / 2**30
  best = f"batch_size={fits * unit} fits (found to within 7 %)" if fits else "no batch does"
  return (
    f"config.batch_size={config.batch_size} needs {over:.2f} GiB more than a device of {topology_name} has ({error}); "
    f"{best}" + (f"; or raise config.accumulate_steps={config.accumulate_steps}" if mode == "train" else "")
  )


def main(arguments: list[str]):
  cli.refuse_arguments(arguments)
  values = flags.FLAGS
  report = check(
    values.config,
    values.topology,
    values.mode,
    values.dump_hlo,
    say=lambda text: print(text, file=sys.stderr, flush=True),
  )
  if values.json:
    keys = ("copies_extra", "all_reduces", "cycles", "cycles_reference", "cycles_no_shuffle", "hbm_bytes")
    print(json.dumps({key: getattr(report, key) for key in keys} | {"topology": values.topology, "mode": values.mode}))
  else:
    for holds, words in report.conditions():
      print(f"{'pass' if holds else 'FAIL'}  {words}")
    if report.offenders:
      print(f"\n{'layer':24} {'moves with shuffle':>20} {'without':>10}")
      for layer, (n, before) in sorted(report.offenders.items()):
        print(f"{layer:24} {n:20} {before:10}")
  sys.exit(0 if report.holds else 1)


if __name__ == "__main__":
  cli.run(main)
