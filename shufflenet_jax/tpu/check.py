"""Checks that the channel shuffle is free on a TPU: compiles a config's step, without a TPU, and examines the HLO.

    python -m shufflenet_jax.tpu.check --config=configs/imagenet.py:scale=1.0,groups=3 --topology=v5e:2x4 \\
        [--mode=infer] [--config.model.lowering=reference] [--dump_hlo=DIR] [--json]

Compiles three programs: the config's own, the same without shuffle, and the same under lowering=reference; about a
minute each for a 1x train step on two cores, and two minutes each for a detector's. Exits with 1 if a condition does
not hold. Cycles are the compiler's estimate, not a measurement.
"""

import json
import pathlib
import sys
import tempfile
import time

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

# In a device's smallest map, over its whole batch: as 32 images of 64 pixels have. With fewer, activations are as small
# as arrays computed from parameters.
LEAST_POSITIONS = 128


def check(config, topology_name: str, mode: str, dump_hlo: str | None = None, log=print):
  """Compiles the three programs for a topology and compares them.

  Args:
    config: of a ShuffleNet, or of a detector with one.
    topology_name: for example "v5e:2x4".
    mode: "train" or "infer".
    dump_hlo: directory for the programs' text.
    log: called with lines of progress.

  Returns:
    A `comparison.Report`.

  Raises:
    UserError: an unknown topology, another network, a batch that does not divide or does not fit.
  """
  from shufflenet_jax import tasks
  from shufflenet_jax.models import build
  from shufflenet_jax.tpu import comparison, topology

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
  return comparison.compare(
    **programs,
    activations=comparison.activations(config, programs["own"].batch, mode),
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
