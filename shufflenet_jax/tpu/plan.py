"""Plans a config on TPU slices: memory, time, chip-hours, and whether the hosts can feed the chips.

    python -m shufflenet_jax.tpu.plan --config=configs/imagenet.py:scale=1.0,groups=3,batch=2048 \\
        --topology=v5e:4x4[,v4:2x2x1,...] [--verify] [--json] [--plot=plan.png]

Compiles the real training step for each topology, without a TPU; about a minute each on two cores, v6e two minutes.
Memory is the compiler's figure; times are its estimate, not a measurement.
"""

import dataclasses
import json
import sys

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import WRONG, UserError
from shufflenet_jax.tpu import planning


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values)
  topologies = "One or more, separated by commas, for example v5e:4x4,v4:2x2x1."
  flags.DEFINE_list("topology", ["v5e:4x4"], topologies, values)
  flags.DEFINE_bool("verify", False, "Also compile the largest batch, instead of extrapolating to it.", values)
  flags.DEFINE_float(
    "host_images_per_second_per_core",
    planning.IMAGES_PER_SECOND_PER_CORE,
    "Images that one vCPU of a host can supply per second.",
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_bool("json", False, "Print one JSON object instead of the report.", values)
  cli.define_path(values, "plot", "PNG file for a plot of hours against chips.")


def main(values: flags.FlagValues) -> int | None:
  from shufflenet_jax.tpu import plan_report

  topologies = [name.strip() for name in values.topology] or [""]
  if len(set(topologies)) < len(topologies) or not all(topologies):
    raise UserError(f"--topology={','.join(topologies)} must name each topology once")
  if values.plot:
    plan_report.check_writable(values.plot)
  plans = planning.make_plans(
    values.config, topologies, values.host_images_per_second_per_core, values.verify,
    log=lambda text: print(text, file=sys.stderr, flush=True),
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
    return WRONG  # none of the topologies can train with this batch; the warnings name others
  return None


command = cli.Command(main, define_flags, required=("config",))

if __name__ == "__main__":
  command()
