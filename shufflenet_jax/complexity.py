"""Parameters and multiply-adds of every network of the paper, or of one config.

    python -m shufflenet_jax.complexity [--json]
    python -m shufflenet_jax.complexity --config=configs/imagenet.py:scale=0.5,groups=8 [--config.model....]

Counted from the built networks: from their arrays and their traced computation, so the functions here hold for any
Flax module. M and MFLOPs are million multiply-adds, as in the paper.
"""

import json

from absl import flags

from shufflenet_jax import cli

if __name__ == "__main__":
  cli.define_config("Count this config's network in place of the paper's.")
  flags.DEFINE_bool("json", False, "Print JSON: a list of objects, one a network.")


def main(arguments: list[str]) -> None:
  cli.refuse_arguments(arguments)
  from shufflenet_jax.counting import multiply_adds
  from shufflenet_jax.models import build
  from shufflenet_jax.paper import complexity_tables

  config = flags.FLAGS.config
  if config is None:
    if flags.FLAGS.json:
      print(json.dumps(list(complexity_tables.count_tables()), indent=1))
    else:
      for line in complexity_tables.as_text(complexity_tables.count_tables()):
        print(line, flush=True)
    return
  _, counted = build.network_for_images(config)
  if flags.FLAGS.json:
    row = {
      "table": None,
      "network": build.describe(config.model),
      "paper_mflops": None,
      "mflops": counted.without_classifier / 1e6,
      "mflops_with_fc": counted.multiply_adds / 1e6,
      "params": counted.parameters,
    }
    print(json.dumps([row], indent=1))
  else:
    print(multiply_adds.overview(counted, config.data.image_size))


if __name__ == "__main__":
  cli.run(main)
