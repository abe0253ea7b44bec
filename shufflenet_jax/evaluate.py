"""Evaluates a checkpoint, every example exactly once. The last line of stdout is one JSON object.

    python -m shufflenet_jax.evaluate --checkpoint=WORKDIR_OR_CHECKPOINT [--data=FOLDER] [--config.data.field=value ...]

Only the checkpoint is needed. --data evaluates a folder that holds a folder of images for each class; the classes are
matched to the checkpoint's by name. --config.data.FIELD=VALUE evaluates on another TFDS dataset.
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

  from shufflenet_jax.training import evaluation, metrics

  say = metrics.console(hosts.this_process())
  source = checkpoint.find(values.checkpoint)
  say(f"evaluating {source.path}")
  with hosts.lost_peers_end_the_run(config.get("peer_timeout_seconds", 60)):
    figures = evaluation.evaluate_checkpoint(source, config, values.data, say=say)
  say(json.dumps({k: v if math.isfinite(v) else None for k, v in figures.items()}))  # JSON has no NaN or infinity


def config_of_checkpoint(values: flags.FlagValues):
  """The checkpoint's own config, whose fields --config.FIELD=VALUE then overrides."""
  from shufflenet_jax.checkpoints import checkpoint

  return checkpoint.find(values.checkpoint).config


command = cli.Command(main, define_flags, required=("checkpoint",), config_of=config_of_checkpoint)

if __name__ == "__main__":
  command()
