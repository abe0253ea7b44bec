"""What a config would take on TPU slices: memory, time, chip-hours, and whether the hosts can feed it.

    python -m shufflenet_jax.tpu.plan --config=configs/imagenet.py:scale=1.0,groups=3,batch=2048 \\
        --topology=v5e:4x4[,v4:2x2x1,...] [--verify] [--json] [--plot=plan.png]

Compiles the real training step for each topology, without a TPU; about a minute each on two cores, v6e two.
Memory is what the compiler says; times are its estimate, not a measurement.
"""

import concurrent.futures
import dataclasses
import json
import os
import sys
import time

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import WRONG, UserError
from shufflenet_jax.tpu import slices

# What a host's vCPU decodes, crops and resizes of full-size ImageNet JPEGs, and how many times more of pictures resized
# to a short side of 256 beforehand: benchmarks/input_pipeline.py's figures for two x86-64 cores (benchmarks/RESULTS.md;
# 1,072 and 1,520 images/s). No TPU VM's vCPUs have been measured; --host_images_per_second_per_core takes their figure.
IMAGES_PER_SECOND_PER_CORE = 536
PRE_RESIZED_SPEEDUP = 1.42

if __name__ == "__main__":
  cli.define_config()
  flags.DEFINE_list("topology", ["v5e:4x4"], "One or more, separated by commas, as v5e:4x4,v4:2x2x1.")
  flags.DEFINE_bool("verify", False, "Compile the largest batch as well, in place of extrapolating to it.")
  flags.DEFINE_float("host_images_per_second_per_core", IMAGES_PER_SECOND_PER_CORE, "What a host's vCPU can feed.", 1)
  flags.DEFINE_bool("json", False, "Print one JSON object in place of the report.")
  cli.define_path("plot", None, "PNG to draw hours against chips into.")
  cli.require("config")

LANES = 128  # a batch that is no multiple of it leaves lanes empty
LARGEST_SCALED_BATCH = 8192  # to which the linear scaling rule was shown to hold (Goyal et al., 2017)
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "u8": 1, "s8": 1}
_VCPUS_PER_CHIP = {name: g.machine_types[4][1] // 4 for name, g in slices.GENERATIONS.items()}


@dataclasses.dataclass
class Plan:
  """A config on one slice. Figures that need a compiled step are None where there is none.

  Attributes:
    topology, accelerator_type, chips, hosts: the slice.
    batch, batch_per_chip: images a step.
    hbm_bytes, hbm_limit: of a chip, by the compiler, and what there is.
    largest_batch_per_chip: that fits, a multiple of `LANES`.
    largest_batch_from: "compiled", or what it is extrapolated from.
    clock_ghz: assumed.
    cycles, step_ms, images_per_second: estimated by the compiler; without waiting for input or other chips.
    step_hours: all steps at that rate.
    hours, chip_hours: the same, or as long as the hosts take to feed it, if that is longer; without evaluation.
    interconnect_bytes: that every chip sends a step, all-reduces taken as rings.
    images_per_second_per_host: what each host must feed.
    host_images_per_second, host_images_per_second_resized: what it can, from full-size and from pre-resized pictures.
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
  host_images_per_second_resized: float
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
  warnings: list[str] = dataclasses.field(default_factory=list)

  @property
  def input_bound(self) -> bool:
    return bool(self.images_per_second_per_host and self.images_per_second_per_host > self.host_images_per_second)


def ring_bytes(all_reduces, devices: int) -> int:
  """Bytes that each of `devices` sends where all-reduces go round a ring: 2 (n - 1) / n times what is reduced."""
  from math import prod

  reduced = sum(BYTES[dtype] * prod(dims) for i in all_reduces for dtype, dims in i.arrays)
  return round(2 * (devices - 1) / devices * reduced)


def blank(config, topology_name: str, images_per_second_per_core: float = IMAGES_PER_SECOND_PER_CORE) -> Plan:
  """What is known without compiling, and the warnings about it.

  Raises:
    UserError: an unknown topology.
  """
  from shufflenet_jax.tpu import topology

  s = slices.from_topology(topology_name)
  fed = images_per_second_per_core * s.vcpus_per_host
  plan = Plan(
    topology_name, s.accelerator_type, s.chips, s.hosts, config.batch_size, config.batch_size / s.chips,
    topology.hbm_bytes(topology_name), s.generation.clock_ghz, fed, fed * PRE_RESIZED_SPEEDUP,
  )  # fmt: skip
  if s.shape not in s.generation.topologies.values():
    near = min(s.generation.topologies.items(), key=lambda known: abs(known[0] - s.chips))[1]
    plan.warnings.append(f"there is no accelerator type of this shape; {s.generation.name}:{near} is near")
  unit = s.chips * (config.batch_norm_group or config.accumulate_steps)
  per_step = config.batch_norm_group or plan.batch_per_chip / config.accumulate_steps
  if plan.batch < unit:
    plan.warnings.append(f"more chips than the batch of {plan.batch} can use: {plan.batch} at most, or batch={unit}")
  elif plan.batch % unit:
    below = plan.batch // unit * unit
    plan.warnings.append(f"batch_size={plan.batch} does not divide over {unit}: {below} or {below + unit} would")
  elif per_step % LANES:
    wanted = -(-plan.batch // (unit * LANES)) * unit * LANES
    plan.warnings.append(
      f"{per_step:g} images a chip are no multiple of {LANES}, so lanes stay empty: batch={wanted}, or fewer chips"
    )
  if plan.batch > LARGEST_SCALED_BATCH:
    plan.warnings.append(
      f"batch {plan.batch} is beyond {LARGEST_SCALED_BATCH}, where a linearly scaled learning rate ceases to hold"
    )
  return plan


def fill(plan: Plan, program, num_train_steps: int) -> None:
  """Enters what a compiled step says."""
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
    more = ", ".join(f"{name} has {n}" for name, n in _VCPUS_PER_CHIP.items() if n > own) or "none has"
    resized = plan.images_per_second_per_host <= plan.host_images_per_second_resized
    remedy = "pictures resized beforehand (data.prepare --short_side=256) " + (
      "would do"
      if resized
      else f"would bring {plan.host_images_per_second_resized:,.0f}; or more vCPUs a chip than {own}: {more}"
    )
    plan.warnings.append(
      f"input-bound: each host must feed {plan.images_per_second_per_host:,.0f} images/s and can"
      f" {plan.host_images_per_second:,.0f}; {remedy}"
    )
  plan.chip_hours = plan.hours * plan.chips


def largest_batches(plans: list[Plan], accumulate_steps: int) -> None:
  """Extrapolates to the batch that fills a chip's memory, from the plans of one generation.

  Memory is taken as linear in the batch, through two compiled points where there are two; through one and nothing at
  all otherwise, which errs on the safe side.
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
      plan.largest_batch_from = f"extrapolated from {compiled} a chip"


def make(config, topologies: list[str], images_per_second_per_core: float, verify: bool, say=print) -> list[Plan]:
  """Plans for a config on several topologies.

  Raises:
    UserError: an unknown topology, or a config that no step can be made of.
  """
  from shufflenet_jax.config import settings
  from shufflenet_jax.models import build
  from shufflenet_jax.tpu import topology
  from shufflenet_jax.tpu.compile import OutOfMemory, compile_lowered, lower_step

  settings.check(config, training=True)
  plans = [blank(config, name, images_per_second_per_core) for name in topologies]
  devices = {name: topology.devices(name) for name in topologies}
  model = build.network(config.model)

  def lowered(plan: Plan, batch_size: int):
    wanted = config.copy_and_resolve_references()
    wanted.batch_size = batch_size
    return lower_step(model, wanted, devices[plan.topology], "train")

  def verify_largest(plan: Plan):
    unit = LANES * config.accumulate_steps
    while plan.largest_batch_per_chip:
      try:
        compile_lowered(lowered(plan, plan.largest_batch_per_chip * plan.chips))
        plan.largest_batch_from = "compiled"
        return
      except OutOfMemory as error:
        fits = int(plan.largest_batch_per_chip * error.limit / error.used) // unit * unit
        plan.largest_batch_per_chip = min(fits, plan.largest_batch_per_chip - unit)

  unit = config.batch_norm_group or config.accumulate_steps
  possible = [p for p in plans if p.batch % (p.chips * unit) == 0]
  start, start_cpu = time.monotonic(), time.process_time()

  def progress(what: str, count: int, all_of_them: list[Plan]):
    name = all_of_them[count - 1].topology
    say(f"{time.monotonic() - start:5.0f} s  compiling the {what} for {name} ({count} of {len(all_of_them)}) ...")

  # One after the other, each on all cores: side by side they take longer. Meanwhile the next is traced, in one thread.
  with concurrent.futures.ThreadPoolExecutor(1) as tracer:
    steps = tracer.map(lambda plan: lowered(plan, plan.batch), possible)
    for count, (plan, step) in enumerate(zip(possible, steps), start=1):
      progress("training step", count, possible)
      try:
        fill(plan, compile_lowered(step), config.num_train_steps)
      except OutOfMemory as error:
        plan.hbm_bytes = error.used
        plan.warnings.append(f"does not fit: {error}; more chips, or a larger accumulate_steps")
  for generation in {p.topology.partition(":")[0] for p in plans}:
    largest_batches([p for p in plans if p.topology.startswith(f"{generation}:")], config.accumulate_steps)
  if verify:
    for count, plan in enumerate(plans, start=1):
      progress(f"largest batch, {plan.largest_batch_per_chip} a chip,", count, plans)
      verify_largest(plan)
  if possible:
    took, cpu = time.monotonic() - start, time.process_time() - start_cpu
    say(f"compiled in {took:.0f} s ({cpu:.0f} s of processor time, on {os.cpu_count()} cores)")
  return plans


def main(arguments: list[str]):
  from shufflenet_jax.tpu import plan_report

  cli.refuse_arguments(arguments)
  values = flags.FLAGS
  topologies = [name.strip() for name in values.topology] or [""]
  if len(set(topologies)) < len(topologies) or not all(topologies):
    raise UserError(f"--topology={','.join(topologies)} must name each topology once")
  if values.plot:
    plan_report.check_writable(values.plot)
  plans = make(
    values.config, topologies, values.host_images_per_second_per_core, values.verify,
    say=lambda text: print(text, file=sys.stderr, flush=True),
  )  # fmt: skip
  if values.json:
    rows = [dataclasses.asdict(plan) | {"input_bound": plan.input_bound} for plan in plans]
    print(json.dumps({"num_train_steps": values.config.num_train_steps, "plans": rows}))
  else:
    print(plan_report.text(plans, values.config.num_train_steps))
  if values.plot:
    plan_report.draw(plans, values.config, values.plot)
    print(f"plot: {values.plot}", file=sys.stderr)
  if not any(plan.hbm_bytes for plan in plans):
    sys.exit(WRONG)  # no topology can have a step of this batch: the warnings say which could


if __name__ == "__main__":
  cli.run(main)
