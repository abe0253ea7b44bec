"""Trains a network; run again in the same work directory, it resumes.

    python -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \\
        [--config.optimizer.learning_rate=0.2 ...]

SIGTERM leads to a checkpoint and exit status 75, Ctrl-C to a checkpoint and 130; a second Ctrl-C ends the run at once.
Several hosts: --distributed; several processes on one machine: launch/local.sh. docs/reliability.md says what is
promised.
"""

from absl import flags

from shufflenet_jax import cli

if __name__ == "__main__":
  from shufflenet_jax.distributed import hosts

  cli.define_config()
  cli.define_path("workdir", None, "Where checkpoints, logs and curves go; local or gs://.")
  hosts.define_flags()
  cli.require("config", "workdir")


def main(arguments: list[str]) -> None:
  from shufflenet_jax.config import settings
  from shufflenet_jax.distributed import hosts
  from shufflenet_jax.training import loop

  cli.refuse_arguments(arguments)
  hosts.exit_on_sigterm()
  settings.check(flags.FLAGS.config, training=True)
  hosts.join(flags.FLAGS, flags.FLAGS.config.peer_timeout_seconds, preemptible=True)
  loop.train(flags.FLAGS.config, flags.FLAGS.workdir)


if __name__ == "__main__":
  cli.run(main)
