"""Parameters and multiply-adds of every network of the paper, or of one config.

    python -m shufflenet_jax.complexity [--json]
    python -m shufflenet_jax.complexity --config=configs/imagenet.py:scale=0.5,groups=8 [--config.model....]

The counts come from the networks themselves: from their arrays and their traced computation. `counting` therefore works
for any Flax module. M and MFLOPs are million multiply-adds, as in the paper.
"""

import json

from absl import flags

from shufflenet_jax import cli


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values, "Count this config's network instead of the paper's.")
  flags.DEFINE_bool("json", False, "Print JSON: a list with one object per network.", values)


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.config import settings
  from shufflenet_jax.counting import multiply_adds
  from shufflenet_jax.models import build
  from shufflenet_jax.paper import complexity_tables

  config = values.config
  if config is None:
    if values.json:
      print(json.dumps(list(complexity_tables.count_tables()), indent=1))
    else:
      for line in complexity_tables.as_text(complexity_tables.count_tables()):
        print(line, flush=True)
    return
  settings.check_image_size(config)
  _, counted = build.network_for_images(config)
  if values.json:
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


command = cli.Command(main, define_flags)

if __name__ == "__main__":
  command()
