"""The commands that train runs on Cloud TPU, with the chip-hours that the TPU compiler's estimate gives."""

import shlex
from collections.abc import Iterator, Sequence

from shufflenet_jax import storage
from shufflenet_jax.errors import UserError
from shufflenet_jax.reproduction.runs import Run
from shufflenet_jax.tpu import planning


def lines(missing: Sequence[Run], wanted) -> Iterator[str]:
  """A comment with the estimate for each network, then `launch/tpu_vm` for each of its seeds, and the sum.

  Compiling takes about a minute for each network.

  Args:
    missing: the runs to train.
    wanted: the `actions.Wanted`: config file, overrides, work directory and topology.

  Raises:
    UserError: no such topology, or a network's batch does not divide over its chips.
  """
  if not wanted.workdir.startswith("gs://"):
    raise UserError(f"--workdir={wanted.workdir} must be in a bucket (gs://...), which all hosts of a slice share")
  total = 0.0
  for cell in dict.fromkeys(run.cell for run in missing):
    own = [run for run in missing if run.cell == cell]
    (planned,) = planning.make_plans(own[0].config, [wanted.topology], None, verify=False, log=lambda text: None)
    if not planned.chip_hours:
      raise UserError(f"{cell.name} cannot be trained on --topology={wanted.topology}: {'; '.join(planned.warnings)}")
    total += planned.chip_hours * len(own)
    yield f"# {cell.label}: {planned.hours:.1f} h, {planned.chip_hours:.0f} chip-hours for each seed (estimate)"
    for run in own:
      yield _command(run, planned.accelerator_type, wanted)
  yield f"# {len(missing)} runs, {total:,.0f} chip-hours (estimate); afterwards, --collect adds their results"


def _command(run: Run, accelerator_type: str, wanted) -> str:
  bucket = "/".join(wanted.workdir.split("/")[:3])
  name = f"{run.cell.name}-{run.seed}".lower().replace("_", "-").replace(".", "-")
  overrides = {"seed": run.seed} | wanted.overrides
  words = [
    "launch/tpu_vm", "up", f"--name={name}", "--zone=ZONE", f"--type={accelerator_type}", "--spot", "--retry=20",
    f"--bucket={storage.join(bucket, 'logs')}", "--", f"--config={wanted.config_file}:{run.cell.arguments}",
    f"--workdir={run.folder(wanted.workdir)}", *(f"--config.{name}={value}" for name, value in overrides.items()),
  ]  # fmt: skip
  return shlex.join(words)
