"""Trains a network; run again in the same work directory, it resumes.

    python -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \\
        [--config.optimizer.learning_rate=0.2 ...]

On SIGTERM it saves a checkpoint and exits with status 75, on Ctrl-C with 130; a second Ctrl-C ends it at once.
--distributed joins several hosts; launch/local.sh runs several processes on one machine. docs/reliability.md describes
what happens when something fails.
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.distributed import hosts


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values)
  cli.define_path(values, "workdir", "Where checkpoints, logs and curves go; local or gs://.")
  hosts.define_flags(values)
  profile = "START,COUNT: steps to trace with JAX's profiler, into WORKDIR/profile."
  flags.DEFINE_string("profile_steps", None, profile, values)


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.config import settings
  from shufflenet_jax.training import loop, profiler

  hosts.exit_on_sigterm()
  settings.check(values.config, training=True)
  profile_steps = profiler.parse(values.profile_steps, values.config.num_train_steps)
  hosts.join(values, values.config.peer_timeout_seconds, preemptible=True)
  loop.train(values.config, values.workdir, profile_steps=profile_steps)


command = cli.Command(main, define_flags, required=("config", "workdir"))

if __name__ == "__main__":
  command()
