"""Evaluates a checkpoint, every example exactly once. The last line of stdout is one JSON object.

    python -m shufflenet_jax.evaluate --checkpoint=WORKDIR_OR_CHECKPOINT [--data=FOLDER] [--config.data.field=value ...]

Needs nothing but the checkpoint. --data evaluates images in a folder per class, matched to the checkpoint's classes by
name; --config.data fields point it at other TFDS data.
"""

import json
import math

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.distributed import hosts


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "checkpoint", "A work directory (its newest checkpoint) or WORKDIR/checkpoints/<step>.")
  hosts.define_flags(values)
  cli.define_path(values, "data", "A folder that holds a folder of images per class.")


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.checkpoints import checkpoint

  config = values.config
  hosts.join(values, config.get("peer_timeout_seconds", 60), preemptible=False)

  import jax

  from shufflenet_jax.training import evaluation, metrics

  say = metrics.console((jax.process_index(), jax.process_count()))
  found = checkpoint.find(values.checkpoint)
  say(f"evaluating {found.path}")
  with hosts.lost_peers_end_the_run(config.get("peer_timeout_seconds", 60)):
    figures = evaluation.evaluate_checkpoint(found, config, values.data, say=say)
  finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}  # JSON knows no others
  say(evaluation.describe(figures), json.dumps(finite), sep="\n")


def config_of_checkpoint(values: flags.FlagValues):
  """The checkpoint's own config, whose fields --config.FIELD=VALUE then overrides."""
  from shufflenet_jax.checkpoints import checkpoint

  return checkpoint.find(values.checkpoint).config


command = cli.Command(main, define_flags, required=("checkpoint",), config_of=config_of_checkpoint)

if __name__ == "__main__":
  command()
