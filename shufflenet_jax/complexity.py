"""Parameters and multiply-adds of every network of the paper, or of one config.

    python -m shufflenet_jax.complexity [--json]
    python -m shufflenet_jax.complexity --config=configs/imagenet.py:scale=0.5,groups=8 [--config.model....]

The counts come from the networks themselves: from their arrays and their traced computation. `counting` therefore works
for any Flax module. A detector is counted for a square picture of `data.short_side`, as papers do. M and MFLOPs are
million multiply-adds, as in the paper.
"""

import json

from absl import flags

from shufflenet_jax import cli


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values, "Count this config's network instead of the paper's.")
  flags.DEFINE_bool("json", False, "Print JSON: a list with one object per network.", values)


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax import tasks
  from shufflenet_jax.config import settings
  from shufflenet_jax.paper import complexity_tables

  config = values.config
  if config is None:
    if values.json:
      print(json.dumps(list(complexity_tables.count_tables()), indent=1))
    else:
      for line in complexity_tables.as_text(complexity_tables.count_tables()):
        print(line, flush=True)
    return
  if tasks.name_of(config) == "detection":
    settings.check(config, training=False)
    config.data.image_size = config.data.short_side  # as papers count; training computes a larger canvas
  settings.check_image_size(config)
  _, counted = tasks.network_for_images(config)
  if values.json:
    print(json.dumps([_row(config, counted)], indent=1))
  else:
    print(counted.overview(config.data.image_size))


def _row(config, counted) -> dict:
  """The counts of a config's network as the JSON object of `complexity_tables`; a detector's also has its `parts`."""
  from shufflenet_jax.models import build

  row = {"table": None, "network": build.describe(config.model), "paper_mflops": None}
  if regions := getattr(counted, "regions", None):
    parts = {name: {"params": params, "mflops": n / 1e6} for name, (params, n) in counted.rows.items()}
    row |= {"mflops": counted.multiply_adds / 1e6, "regions": regions, "parts": parts}
  else:
    row |= {"mflops": counted.without_classifier / 1e6, "mflops_with_fc": counted.multiply_adds / 1e6}
  return row | {"params": counted.parameters}


command = cli.Command(main, define_flags)

if __name__ == "__main__":
  command()
