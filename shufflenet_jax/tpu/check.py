"""Checks that the channel shuffle is free on a TPU: compiles a config's step, without a TPU, and examines the HLO.

    python -m shufflenet_jax.tpu.check --config=configs/imagenet.py:scale=1.0,groups=3 --topology=v5e:2x4 \\
        [--mode=infer] [--config.model.lowering=reference] [--dump_hlo=DIR] [--json]

Compiles three programs: the config's own, the same without shuffle, and the same under lowering=reference; about a
minute each for a 1x train step on two cores, and two minutes each for a detector's. Exits with 1 if a condition does
not hold. Cycles are the compiler's estimate, not a measurement.
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

# A shuffle counts as free up to this multiple of the cycles without shuffle, plus an allowance for each unit's kernel,
# whose shuffling takes a few instructions of at least 1,800 cycles each.
FREE_RATIO = 1.05
KERNEL_CYCLES = 10_000
# The compiler may compute a batch in several parts. With up to this many, the parts' arrays still count as activations.
MAX_BATCH_PARTS = 4
# In a device's smallest map, over its whole batch: as 32 images of 64 pixels have. With fewer, activations are as small
# as arrays computed from parameters.
LEAST_POSITIONS = 128


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
  import jax
  import jax.numpy as jnp

  from shufflenet_jax import tasks
  from shufflenet_jax.models import build
  from shufflenet_jax.models.shufflenet import stage_channels
  from shufflenet_jax.tpu import hlo

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


def check(config, topology_name: str, mode: str, dump_hlo: str | None = None, log=print) -> Report:
  """Compiles the three programs for a topology and compares them.

  Args:
    config: of a ShuffleNet, or of a detector with one.
    topology_name: for example "v5e:2x4".
    mode: "train" or "infer".
    dump_hlo: directory for the programs' text.
    log: called with lines of progress.

  Raises:
    UserError: an unknown topology, another network, a batch that does not divide or does not fit.
  """
  from shufflenet_jax import tasks
  from shufflenet_jax.models import build
  from shufflenet_jax.tpu import topology

  devices = _checked_devices(config, topology_name, mode)
  folder = _writable_folder(dump_hlo) if dump_hlo else None
  wanted = {
    "own": tasks.network(config),
    "no_shuffle": tasks.network(_with(config, shuffle="none")),
    "reference": tasks.network(_with(config, lowering="reference")),
  }
  programs = {}
  for name, variant in wanted.items():
    if same := next((done for done in programs if wanted[done] == variant), None):
      programs[name] = programs[same]
    else:
      programs[name] = _compile(name, variant, config, devices, topology_name, mode, log)
    if folder:
      (folder / f"{name}.hlo.txt").write_text(programs[name].text)
  if folder:
    log(f"HLO of each program in {folder}/")
  return compare(
    **programs,
    activations=activations(config, programs["own"].batch, mode),
    units=sum(build.network(config.model).repeats),
    all_reduces_wanted=1 if mode == "train" else 0,
    hbm_limit=topology.hbm_bytes(topology_name),
  )


def _with(config, **fields):
  """The config with other values in its section `model`."""
  config = config.copy_and_resolve_references()
  config.model.update(fields)
  return config


def _checked_devices(config, topology_name: str, mode: str) -> list:
  """The topology's devices, after checking that the config suits this comparison."""
  from shufflenet_jax import tasks
  from shufflenet_jax.config import settings
  from shufflenet_jax.distributed import mesh
  from shufflenet_jax.tpu import topology

  if config.model.network != "shufflenet_v1":
    raise UserError(f"config.model.network={config.model.network} has no channel shuffle; choose shufflenet_v1")
  if config.model.shuffle == "none":
    raise UserError("config.model.shuffle=none leaves no shuffle to check; choose paper or release")
  settings.check(config, training=True)
  devices = topology.devices(topology_name)
  mesh.check_batch_size("config.batch_size", config.batch_size, len(devices))
  at_once = len(devices) * (mesh.micro_batches(config, len(devices)) if mode == "train" else 1)
  smallest_map = min(tasks.class_of(config).positions(config, mode))
  least = at_once * -(-LEAST_POSITIONS // smallest_map)
  if config.batch_size < least:
    raise UserError(
      f"config.batch_size={config.batch_size} is too small to distinguish activations from kernels: "
      f"{least} or more on {topology_name}"
    )
  return devices


def _writable_folder(path: str) -> pathlib.Path:
  folder = pathlib.Path(path)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError as error:
    raise UserError(f"--dump_hlo={path} cannot be written: {error.strerror}") from None
  return folder


def _compile(name: str, model, config, devices: list, topology_name: str, mode: str, log):
  """One of the programs, as a `compile.Program`."""
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_step

  log(f"compiling {mode} step for {topology_name}: {name} ...")
  began = time.monotonic()
  try:
    program = compile_step(model, config, devices, mode)
  except OutOfMemory as error:
    if name != "own":
      raise UserError(f"the step under {name} does not fit {topology_name}: {error}") from None
    raise UserError(_remedy(config, devices, topology_name, mode, model, error, log)) from None
  log(f"  {time.monotonic() - began:.0f} s")
  return program


def _remedy(config, devices, topology_name, mode, model, error, log) -> str:
  """An error message: by how much the batch is too large, and the largest that fits, found by compiling."""
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_step

  unit = len(devices) * ((config.batch_norm_group or config.accumulate_steps) if mode == "train" else 1)
  fits, too_large = 0, config.batch_size // unit
  # Memory is roughly proportional to the batch, so that the first guess is close.
  guess = int(too_large * error.limit / error.used)
  smaller = config.copy_and_resolve_references()
  while too_large - fits > max(too_large // 16, 1):
    guess = min(max(guess, fits + 1), too_large - 1)
    smaller.batch_size = guess * unit
    log(f"  does not fit; trying batch_size={smaller.batch_size} ...")
    try:
      compile_step(model, smaller, devices, mode)
      fits = guess
    except OutOfMemory:
      too_large = guess
    guess = (fits + too_large) // 2
  over = (error.used - error.limit) / 2**30
  best = f"batch_size={fits * unit} fits (found to within 7 %)" if fits else "no batch fits"
  return (
    f"config.batch_size={config.batch_size} needs {over:.2f} GiB more than a device of {topology_name} has ({error}); "
    f"{best}" + (f"; or raise config.accumulate_steps={config.accumulate_steps}" if mode == "train" else "")
  )


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values)
  flags.DEFINE_string(
    "topology", "v5e:2x4", "TPU slice to compile for; the number of its devices must divide config.batch_size.", values
  )
  flags.DEFINE_enum(
    "mode", "train", ("train", "infer"), "The train step; or uint8 images to logits, or to boxes.", values
  )
  cli.define_path(values, "dump_hlo", "Directory for the optimised HLO of each program.")
  flags.DEFINE_bool("json", False, "Print one JSON object instead of the report.", values)


def main(values: flags.FlagValues) -> int:
  report = check(
    values.config,
    values.topology,
    values.mode,
    values.dump_hlo,
    log=lambda text: print(text, file=sys.stderr, flush=True),
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
  return 0 if report.holds else 1


command = cli.Command(main, define_flags, required=("config",))

if __name__ == "__main__":
  command()
