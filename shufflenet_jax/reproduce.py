"""Reproduces the paper's tables of errors (2 to 5): trains their networks, and compares the errors with the paper's.

    python -m shufflenet_jax.reproduce --tables=2,3,4 --config=configs/tiny_imagenet.py --seeds=3 \\
        --workdir=runs/tables [--scales=0.25,0.5] [--only=g3,g8] [--list | --report | --launch | --collect]

A run is the training of one network of a table with one seed. The runs without a line in WORKDIR/results.jsonl (or
--results) are carried out, one after the other; each can be stopped at any time, and the same command resumes it. On a
CPU, start the command once for each core, bound to it (`taskset -c 0 python ...`): the processes share the runs, if the
work directory is a local one. The
config must take the arguments of configs/imagenet.py. --list shows what is done and how long the rest will take;
--report writes Markdown and plots beside the results; --launch prints the commands for the missing runs on Cloud TPU,
and an estimate of their chip-hours; when those runs have ended, --collect adds their results.
"""

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.config import config_file
from shufflenet_jax.errors import UserError


def define_flags(values: flags.FlagValues) -> None:
  cli.define_config(values, "Config file without arguments; each network adds its own.")
  cli.define_path(values, "workdir", "Folder of the runs' work directories and of results.jsonl; local or gs://.")
  cli.define_path(values, "results", "File of results, if it is not WORKDIR/results.jsonl.")
  flags.DEFINE_list("tables", ["2", "3", "4"], "The paper's tables: 2, 3, 4 or 5.", values)
  flags.DEFINE_list("scales", [], "Only networks of these scales, and those compared with them: 0.25,0.5,1.", values)
  flags.DEFINE_list("only", [], "Only networks whose names (see --list) contain one of these words.", values)
  flags.DEFINE_integer("seeds", 3, "Number of seeds of each network; they are 0, 1, ...", 1, flag_values=values)
  flags.DEFINE_bool("list", False, "List the runs; train nothing.", values)
  flags.DEFINE_bool("collect", False, "Add the results of finished runs, trained anywhere; train nothing.", values)
  flags.DEFINE_bool("report", False, "Write the report; train nothing.", values)
  flags.DEFINE_bool("launch", False, "Print the commands for Cloud TPU; train nothing.", values)
  flags.DEFINE_string("topology", "v5e:2x4", "With --launch: the slice of each run.", values)


def config_and_file(values: flags.FlagValues):
  """Loads the config; the file's name is kept as a flag, because each network loads the file with its own arguments."""
  if ":" in values.config:
    raise UserError(f"--config={values.config}: give the file without :ARGUMENTS; the tables' networks determine them")
  flags.DEFINE_string("config_file", values.config, "", values)
  flags.DEFINE_string("overrides", None, "", values)
  return config_file.load(values.config)


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.distributed import hosts
  from shufflenet_jax.reproduction import actions

  hosts.exit_on_sigterm()
  modes = [name for name in ("list", "collect", "report", "launch") if values[name].value]
  if len(modes) > 1:
    raise UserError(f"--{modes[0]} and --{modes[1]} exclude each other")
  action = {"list": actions.list_runs, "collect": actions.collect, "report": actions.report, "launch": actions.launch}
  action.get(modes[0] if modes else "", actions.train)(actions.Wanted.from_flags(values))


command = cli.Command(main, define_flags, required=("config", "workdir"), config_of=config_and_file)

if __name__ == "__main__":
  command()
