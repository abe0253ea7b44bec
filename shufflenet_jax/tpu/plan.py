"""Plans a config on TPU slices: memory, time, chip-hours, and whether the hosts can feed the chips.

    python -m shufflenet_jax.tpu.plan --config=configs/imagenet.py:scale=1.0,groups=3,batch=2048 \\
        --topology=v5e:4x4[,v4:2x2x1,...] [--verify] [--json] [--plot=plan.png] \\
        [--config.data.data_dir=gs://BUCKET/tensorflow_datasets | --dataset_gb=65 --dataset_images=1331167]

Compiles the real training step for each topology, without a TPU; about a minute each on two cores, v6e two minutes.
Memory is the compiler's figure; times are its estimate, not a measurement. A step of more than 128 images per chip is
compiled again in micro-batches of 128 (config.accumulate_steps), which may be faster. The last lines compare reading
the bucket in every epoch with copying the dataset into the hosts' memory first (launch/tpu_vm --stage_data). The
dataset's size is that of the files in data.data_dir or, for imagenet2012 without a data_dir, of full-size pictures.
"""

import dataclasses
import json
import sys

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import WRONG, UserError
from shufflenet_jax.tpu import dataset_reads, planning


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values)
  topologies = "One or more, separated by commas, for example v5e:4x4,v4:2x2x1."
  flags.DEFINE_list("topology", ["v5e:4x4"], topologies, values)
  flags.DEFINE_bool("verify", False, "Also compile the largest batch, instead of extrapolating to it.", values)
  flags.DEFINE_float(
    "host_images_per_second_per_core",
    None,
    "Images that one vCPU of a host can supply per second; by default {labels}, or {objects} with boxes.".format(
      **planning.IMAGES_PER_SECOND_PER_CORE
    ),
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_float(
    "bucket_gb_per_second",
    dataset_reads.BUCKET_GB_PER_SECOND,
    "What one host reads from the bucket, GB/s; the default is an assumption.",
    lower_bound=1e-3,
    flag_values=values,
  )
  flags.DEFINE_float("dataset_gb", None, "Size of the dataset, GB.", lower_bound=1e-6, flag_values=values)
  flags.DEFINE_integer("dataset_images", None, "Images in the dataset.", lower_bound=1, flag_values=values)
  flags.DEFINE_bool("json", False, "Print one JSON object instead of the report.", values)
  cli.define_path(values, "plot", "PNG file for a plot of hours against chips.")


def main(values: flags.FlagValues) -> int | None:
  from shufflenet_jax.tpu import plan_report

  topologies = [name.strip() for name in values.topology] or [""]
  if len(set(topologies)) < len(topologies) or not all(topologies):
    raise UserError(f"--topology={','.join(topologies)} must name each topology once")
  if values.plot:
    plan_report.check_writable(values.plot)
  if bool(values.dataset_gb) != bool(values.dataset_images):
    raise UserError("--dataset_gb and --dataset_images must be given together: their ratio is the size of an image")
  plans = planning.make_plans(
    values.config, topologies, values.host_images_per_second_per_core, values.verify,
    log=lambda text: print(text, file=sys.stderr, flush=True),
    compare_micro_batches=True,
    dataset=dataset_reads.dataset_of(values.config, values.dataset_gb, values.dataset_images),
    bucket_gb_per_second=values.bucket_gb_per_second,
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
