"""Copies a config's dataset to this machine, for example into its memory, so that a run reads the bucket only once.

    python -m shufflenet_jax.data.stage --config=configs/imagenet.py --to=/dev/shm/dataset \\
        --config.data.data_dir=gs://BUCKET/tensorflow_datasets

Then train with --config.data.data_dir=/dev/shm/dataset. Copied are the files of the dataset that the config's splits
for training and evaluation need. The copy is checked; if an earlier start has made and checked the same one, nothing is
copied. An interrupted copy continues. `launch/tpu_vm up --stage_data` runs this command on every host.
"""

from absl import flags

from shufflenet_jax import cli


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values, "Config file; its data section determines what to copy.")
  cli.define_path(values, "to", "Folder of this machine to copy into; later the value of --config.data.data_dir.")


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.data import needed_files, staging
  from shufflenet_jax.distributed import hosts

  hosts.exit_on_sigterm()  # files that are whole are kept
  staging.stage(needed_files.of_config(values.config), values.to)


command = cli.Command(main, define_flags, required=("config", "to"))

if __name__ == "__main__":
  command()
