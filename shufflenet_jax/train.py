"""Trains a network; run again in the same work directory, it resumes.

    python -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \\
        [--config.optimizer.learning_rate=0.2 ...]

SIGTERM leads to a checkpoint and exit status 75, Ctrl-C to a checkpoint and 130; a second Ctrl-C ends the run at once.
Several hosts: --distributed; several processes on one machine: launch/local.sh. docs/reliability.md says what is
promised.
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.distributed import hosts


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values)
  cli.define_path(values, "workdir", "Where checkpoints, logs and curves go; local or gs://.")
  hosts.define_flags(values)


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.config import settings
  from shufflenet_jax.training import loop

  hosts.exit_on_sigterm()
  settings.check(values.config, training=True)
  hosts.join(values, values.config.peer_timeout_seconds, preemptible=True)
  loop.train(values.config, values.workdir)


command = cli.Command(main, define_flags, required=("config", "workdir"))

if __name__ == "__main__":
  command()
