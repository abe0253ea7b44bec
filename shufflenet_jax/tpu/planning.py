"""Plans a config on TPU slices: memory, time, chip-hours, and whether the hosts can feed the chips.

It compiles the real training step for each topology, without a TPU. Memory is the compiler's figure; times are its
estimate, not a measurement.
"""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable

from shufflenet_jax.data import cores
from shufflenet_jax.tpu import dataset_reads, slices
from shufflenet_jax.tpu.micro_batches import LANES, MicroBatches, steps_to_try

# Pictures that one vCPU of a host decodes and resizes per second, by what a task takes from the data: ImageNet's JPEGs
# with labels, in full size, or COCO's with boxes; and the factor by which it is faster with pictures that were resized
# to a short side of 256 beforehand, which is too small for boxes. Labels: benchmarks/input_pipeline.py on two x86-64
# cores (1,072 and 1,520 images/s; benchmarks/RESULTS.md). Boxes: 80 pictures of COCO, by configs/coco.py with size=600,
# per second of processor time of an AMD EPYC (Zen 4; 98 with size=300). The vCPUs of TPU VMs have not been measured;
# once their figure is known, give it as --host_images_per_second_per_core.
IMAGES_PER_SECOND_PER_CORE = {"labels": 536, "objects": 55}
PRE_RESIZED_SPEEDUP = {"labels": 1.42}

LARGEST_SCALED_BATCH = 8192  # largest batch for which linear scaling was shown to work (Goyal et al., 2017)
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "u8": 1, "s8": 1}
_VCPUS_PER_CHIP = {name: g.machine_types[4].vcpus // 4 for name, g in slices.GENERATIONS.items()}


@dataclasses.dataclass
class Plan:
  """A config on one slice. Figures that need a compiled step are None until there is one.

  Attributes:
    topology: of the slice.
    accelerator_type: of the slice.
    chips: in the slice.
    hosts: in the slice.
    batch: images per step.
    batch_per_chip: images per step and chip.
    hbm_limit: memory of a chip, bytes.
    clock_ghz: of a chip, assumed.
    host_images_per_second: that each host can supply, from full-size images.
    host_images_per_second_resized: the same from images that were resized beforehand; None if that will not do.
    hbm_bytes: memory that the step needs on a chip, according to the compiler.
    largest_batch_per_chip: largest batch that fits, a multiple of `LANES`.
    largest_batch_from: "compiled", or a text that names the batches it was extrapolated from.
    cycles: of a step, estimated by the compiler, without waiting for input or other chips.
    step_ms: the same in milliseconds.
    images_per_second: at that rate.
    step_hours: for all steps at that rate.
    hours: `step_hours`, or longer if the hosts limit the rate; without evaluation.
    chip_hours: `hours` of all chips.
    interconnect_bytes: sent by every chip in a step, if all-reduces are rings.
    images_per_second_per_host: that each host must supply.
    micro_batches: the same step in smaller micro-batches; None if none were tried, or they do not fit.
    reads: what is read from the bucket; None if the dataset's size is not known.
    warnings: each with its remedy.
  """

  topology: str
  accelerator_type: str
  chips: int
  hosts: int
  batch: int
  batch_per_chip: float
  hbm_limit: int
  clock_ghz: float
  host_images_per_second: float
  host_images_per_second_resized: float | None
  hbm_bytes: int | None = None
  largest_batch_per_chip: int | None = None
  largest_batch_from: str | None = None
  cycles: int | None = None
  step_ms: float | None = None
  images_per_second: float | None = None
  step_hours: float | None = None
  hours: float | None = None
  chip_hours: float | None = None
  interconnect_bytes: int | None = None
  images_per_second_per_host: float | None = None
  micro_batches: MicroBatches | None = None
  reads: dataset_reads.Reads | None = None
  warnings: list[str] = dataclasses.field(default_factory=list)

  @property
  def input_bound(self) -> bool:
    return bool(self.images_per_second_per_host and self.images_per_second_per_host > self.host_images_per_second)


def ring_bytes(all_reduces, devices: int) -> int:
  """Bytes that each of n devices sends if all-reduces go round a ring: 2 (n - 1) / n times the bytes to reduce."""
  from math import prod

  reduced = sum(BYTES[dtype] * prod(dims) for i in all_reduces for dtype, dims in i.arrays)
  return round(2 * (devices - 1) / devices * reduced)


def before_compiling(config, topology_name: str, images_per_second_per_core: float | None = None) -> Plan:
  """A plan with the figures that are known without compiling, and the warnings about them.

  Raises:
    UserError: an unknown topology.
  """
  from shufflenet_jax import tasks
  from shufflenet_jax.tpu import topology

  s = slices.from_topology(topology_name)
  examples = tasks.class_of(config).examples
  speedup = PRE_RESIZED_SPEEDUP.get(examples)
  fed = (images_per_second_per_core or IMAGES_PER_SECOND_PER_CORE[examples]) * s.vcpus_per_host
  plan = Plan(
    topology_name, s.accelerator_type, s.chips, s.hosts, config.batch_size, config.batch_size / s.chips,
    topology.hbm_bytes(topology_name), s.generation.clock_ghz, fed, speedup and fed * speedup,
  )  # fmt: skip
  if s.shape not in s.generation.topologies.values():
    near = min(s.generation.topologies.items(), key=lambda known: abs(known[0] - s.chips))[1]
    plan.warnings.append(f"there is no accelerator type of this shape; the nearest is {s.generation.name}:{near}")
  unit = s.chips * (config.batch_norm_group or config.accumulate_steps)
  per_step = config.batch_norm_group or plan.batch_per_chip / config.accumulate_steps
  if plan.batch < unit:
    plan.warnings.append(f"batch_size={plan.batch} is too small for {plan.chips} chips: fewer chips, or batch={unit}")
  elif plan.batch % unit:
    below = plan.batch // unit * unit
    plan.warnings.append(f"batch_size={plan.batch} is not a multiple of {unit}: {below} or {below + unit} is")
  elif per_step % LANES and tasks.name_of(config) == "classification":  # a detector's regions fill the lanes
    wanted = -(-plan.batch // (unit * LANES)) * unit * LANES
    plan.warnings.append(
      f"{per_step:g} images per chip are not a multiple of {LANES}, so lanes stay empty: batch={wanted}, or fewer chips"
    )
  if plan.batch > LARGEST_SCALED_BATCH:
    plan.warnings.append(
      f"batch {plan.batch} is above {LARGEST_SCALED_BATCH}, up to which linear learning rate scaling is known to work"
    )
  return plan


def add_compiled_step(plan: Plan, program, num_train_steps: int) -> None:
  """Adds the figures that follow from a compiled step, a `compile.Program`."""
  from shufflenet_jax.tpu import hlo

  plan.hbm_bytes = program.hbm_bytes
  plan.cycles = hlo.cycles(program.instructions)
  plan.step_ms = plan.cycles / plan.clock_ghz / 1e6
  plan.images_per_second = plan.batch / plan.step_ms * 1e3
  plan.interconnect_bytes = ring_bytes(hlo.all_reduces(program.instructions), plan.chips)
  plan.images_per_second_per_host = plan.images_per_second / plan.hosts
  plan.step_hours = num_train_steps * plan.step_ms / 3.6e6
  plan.hours = plan.step_hours
  if plan.input_bound:
    plan.hours *= plan.images_per_second_per_host / plan.host_images_per_second
    own = _VCPUS_PER_CHIP[plan.topology.partition(":")[0]]
    more = ", ".join(f"{name} has {n}" for name, n in _VCPUS_PER_CHIP.items() if n > own) or "none has more"
    remedy = f"more vCPUs per chip than {own}: {more}"
    if (resized := plan.host_images_per_second_resized) is not None:
      suffices = plan.images_per_second_per_host <= resized
      other = "would suffice" if suffices else f"would reach {resized:,.0f}; or {remedy}"
      remedy = f"images resized beforehand (data.prepare --short_side=256) {other}"
    plan.warnings.append(
      f"input-bound: each host must supply {plan.images_per_second_per_host:,.0f} images/s and can supply"
      f" {plan.host_images_per_second:,.0f}; {remedy}"
    )
  plan.chip_hours = plan.hours * plan.chips


def largest_batches(plans: list[Plan], accumulate_steps: int) -> None:
  """Extrapolates to the batch that fills a chip's memory, for the plans of one generation.

  Memory is assumed to be linear in the batch: a line through the smallest and the largest compiled batch or, if only
  one was compiled, through it and the origin, which underestimates the largest batch.
  """
  points = sorted({(p.batch_per_chip, p.hbm_bytes) for p in plans if p.hbm_bytes})
  if not points:
    return
  (b, high), (a, low) = points[-1], points[0] if len(points) > 1 else (0, 0)
  unit = LANES * accumulate_steps
  for plan in plans:
    if high > low:
      fits = a + (plan.hbm_limit - low) * (b - a) / (high - low)
      plan.largest_batch_per_chip = max(int(fits) // unit * unit, 0)
      compiled = " and ".join(f"{x:g}" for x in sorted({a, b} - {0}))
      plan.largest_batch_from = f"extrapolated from {compiled} per chip"


def make_plans(
  config,
  topologies: list[str],
  images_per_second_per_core: float | None,
  verify: bool,
  log=print,
  compare_micro_batches: bool = False,
  dataset: dataset_reads.Dataset | None = None,
  bucket_gb_per_second: float = dataset_reads.BUCKET_GB_PER_SECOND,
) -> list[Plan]:
  """Plans a config on several topologies.

  Args:
    config: a config like that of configs/imagenet.py.
    topologies: names such as "v5e:4x4".
    images_per_second_per_core: that one vCPU of a host can supply; None for `IMAGES_PER_SECOND_PER_CORE`.
    verify: also compile the largest batch, instead of extrapolating to it.
    log: called with lines of progress.
    compare_micro_batches: also compile steps of more than `LANES` images per chip in micro-batches of that many.
    dataset: its size, if known.
    bucket_gb_per_second: that one host reads from the bucket.

  Raises:
    UserError: an unknown topology, or a config from which no step can be built.
  """
  from shufflenet_jax import tasks
  from shufflenet_jax.config import settings
  from shufflenet_jax.tpu import topology
  from shufflenet_jax.tpu.compile import lower_step

  settings.check(config, training=True)
  plans = [before_compiling(config, name, images_per_second_per_core) for name in topologies]
  devices = {name: topology.devices(name) for name in topologies}
  model = tasks.network(config)

  def lowered(plan: Plan, batch_size: int, accumulate_steps: int = config.accumulate_steps):
    wanted = config.copy_and_resolve_references()
    wanted.batch_size, wanted.accumulate_steps = batch_size, accumulate_steps
    return lower_step(model, wanted, devices[plan.topology], "train")

  unit = config.batch_norm_group or config.accumulate_steps
  possible = [p for p in plans if p.batch % (p.chips * unit) == 0]
  progress = _Progress(log)
  _compile_steps(possible, lowered, config.num_train_steps, progress)
  for plan in possible:
    if dataset and plan.cycles:
      plan.reads = dataset_reads.of_plan(plan, dataset, bucket_gb_per_second, config.num_train_steps)
  divisible = [(p, steps) for p in possible if compare_micro_batches and (steps := steps_to_try(config, p.chips))]
  for count, (plan, steps) in enumerate(divisible, start=1):
    progress.compiling(f"same step in {steps} micro-batches", plan, count, len(divisible))
    _add_micro_batches(plan, lowered, steps, config.accumulate_steps)
  for generation in {p.topology.partition(":")[0] for p in plans}:
    largest_batches([p for p in plans if p.topology.startswith(f"{generation}:")], config.accumulate_steps)
  if verify:
    for count, plan in enumerate(plans, start=1):
      progress.compiling(f"largest batch, {plan.largest_batch_per_chip} per chip,", plan, count, len(plans))
      _verify_largest(plan, lowered, LANES * config.accumulate_steps)
  if possible:
    progress.finished()
  return plans


def _compile_steps(plans: list[Plan], lowered: Callable, num_train_steps: int, progress: "_Progress") -> None:
  """Compiles the step of each plan and adds its figures; see `_verify_largest` for `lowered`."""
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_lowered

  # One after the other, because the compiler uses all cores: in parallel they take longer. Meanwhile a single thread
  # traces the next step.
  with concurrent.futures.ThreadPoolExecutor(1) as tracer:
    steps = tracer.map(lambda plan: lowered(plan, plan.batch), plans)
    for count, (plan, step) in enumerate(zip(plans, steps), start=1):
      progress.compiling("training step", plan, count, len(plans))
      try:
        add_compiled_step(plan, compile_lowered(step), num_train_steps)
      except OutOfMemory as error:
        plan.hbm_bytes = error.used
        plan.warnings.append(f"does not fit: {error}; more chips, or a larger accumulate_steps")


def _add_micro_batches(plan: Plan, lowered: Callable, steps: int, steps_before: int) -> None:
  """Compiles a plan's step with another number of micro-batches; see `_verify_largest` for `lowered`."""
  from shufflenet_jax.tpu import hlo
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_lowered

  with contextlib.suppress(OutOfMemory):
    program = compile_lowered(lowered(plan, plan.batch, steps))
    images = plan.batch // plan.chips
    plan.micro_batches = MicroBatches(
      accumulate_steps=steps,
      images=images // steps,
      images_before=images // steps_before,
      cycles=hlo.cycles(program.instructions),
      hbm_bytes=program.hbm_bytes,
    )


def _verify_largest(plan: Plan, lowered: Callable, unit: int) -> None:
  """Compiles a plan's largest batch, and smaller ones until one fits.

  Args:
    plan: whose `largest_batch_per_chip` is extrapolated.
    lowered: (plan, batch size, and accumulate_steps if not the config's) -> the traced step.
    unit: the batch per chip has to be a multiple of it.
  """
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_lowered

  while plan.largest_batch_per_chip:
    try:
      compile_lowered(lowered(plan, plan.largest_batch_per_chip * plan.chips))
      plan.largest_batch_from = "compiled"
      return
    except OutOfMemory as error:
      fits = int(plan.largest_batch_per_chip * error.limit / error.used) // unit * unit
      plan.largest_batch_per_chip = min(fits, plan.largest_batch_per_chip - unit)


class _Progress:
  """Logs which step is being compiled, and the time spent so far."""

  def __init__(self, log: Callable[[str], None]):
    self._log, self._start, self._start_cpu = log, time.monotonic(), time.process_time()

  def compiling(self, what: str, plan: Plan, count: int, total: int) -> None:
    seconds = time.monotonic() - self._start
    self._log(f"{seconds:5.0f} s  compiling the {what} for {plan.topology} ({count} of {total}) ...")

  def finished(self) -> None:
    took, cpu = time.monotonic() - self._start, time.process_time() - self._start_cpu
    self._log(f"compiled in {took:.0f} s ({cpu:.0f} s of processor time, on {cores.count()} cores)")
