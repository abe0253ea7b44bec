"""Evaluates a checkpoint, every example exactly once. The last line of stdout is one JSON object.

    python -m shufflenet_jax.evaluate --checkpoint=WORKDIR_OR_CHECKPOINT [--data=FOLDER] [--config.data.field=value ...]

Only the checkpoint is needed. --data evaluates a folder that holds a folder of images for each class; the classes are
matched to the checkpoint's by name. --config.data.FIELD=VALUE evaluates on another TFDS dataset.
"""

import json
import math

from absl import flags

from shufflenet_jax import cli

if __name__ == "__main__":
  from shufflenet_jax.distributed import hosts

  cli.define_path("checkpoint", None, "A work directory (its newest checkpoint) or WORKDIR/checkpoints/<step>.")
  hosts.define_flags()
  cli.define_path("data", None, "A folder that holds a folder of images per class.")
  cli.require("checkpoint")


def main(arguments: list[str]) -> None:
  cli.refuse_arguments(arguments)
  from shufflenet_jax.checkpoints import checkpoint
  from shufflenet_jax.distributed import hosts

  config = flags.FLAGS.config
  hosts.join(flags.FLAGS, config.get("peer_timeout_seconds", 60), preemptible=False)

  from shufflenet_jax.training import evaluation, metrics

  say = metrics.console(hosts.this_process())
  source = checkpoint.find(flags.FLAGS.checkpoint)
  say(f"evaluating {source.path}")
  with hosts.lost_peers_end_the_run(config.get("peer_timeout_seconds", 60)):
    figures = evaluation.evaluate_checkpoint(source, config, flags.FLAGS.data, say=say)
  say(json.dumps({k: v if math.isfinite(v) else None for k, v in figures.items()}))  # JSON has no NaN or infinity


def config_of_checkpoint(values: flags.FlagValues):
  """The checkpoint's own config, whose fields --config.FIELD=VALUE then overrides."""
  from shufflenet_jax.checkpoints import checkpoint

  return checkpoint.find(values.checkpoint).config


if __name__ == "__main__":
  cli.run(main, config_of_checkpoint)
