"""Trains a network; run again in the same work directory, it resumes.

    python -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \\
        [--config.optimizer.learning_rate=0.2 ...]

On SIGTERM it saves a checkpoint and exits with status 75, on Ctrl-C with 130; a second Ctrl-C ends it at once.
--distributed joins several hosts; launch/local.sh runs several processes on one machine. docs/reliability.md describes
what happens when something fails.
"""

from absl import flags

from shufflenet_jax import cli

if __name__ == "__main__":
  from shufflenet_jax.distributed import hosts

  cli.define_config()
  cli.define_path("workdir", None, "Where checkpoints, logs and curves go; local or gs://.")
  hosts.define_flags()
  flags.DEFINE_string("profile_steps", None, "START,COUNT: steps to trace with JAX's profiler, into WORKDIR/profile.")
  cli.require("config", "workdir")


def main(arguments: list[str]) -> None:
  from shufflenet_jax.config import settings
  from shufflenet_jax.distributed import hosts
  from shufflenet_jax.training import loop, profiler

  cli.refuse_arguments(arguments)
  hosts.exit_on_sigterm()
  config = flags.FLAGS.config
  settings.check(config, training=True)
  profile_steps = profiler.parse(flags.FLAGS.profile_steps, config.num_train_steps)
  hosts.join(flags.FLAGS, config.peer_timeout_seconds, preemptible=True)
  loop.train(config, flags.FLAGS.workdir, profile_steps=profile_steps)


if __name__ == "__main__":
  cli.run(main)
