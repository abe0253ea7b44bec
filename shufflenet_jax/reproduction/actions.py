"""What `python -m shufflenet_jax.reproduce` does: train, list, collect, report, or print commands for Cloud TPU."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import tabulate

from shufflenet_jax import storage, tasks
from shufflenet_jax.config import config_file, settings
from shufflenet_jax.errors import UserError
from shufflenet_jax.progress import duration
from shufflenet_jax.reproduction import cells, results, runs

_SET_BY_CELLS = ("seed", "init_from", "model.network", "model.scale", "model.groups", "model.shuffle", "model.mflops")


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What the command line asks for.

  Attributes:
    tables: of the paper.
    cells: their networks, or the chosen ones.
    runs: every network with every seed.
    config_file: without arguments.
    overrides: dotted fields of the config that the command line sets -> value.
    workdir: of all runs.
    results: the file of results.
    topology: of the slices that `launch` plans.
  """

  tables: tuple[int, ...]
  cells: Sequence[cells.Cell]
  runs: Sequence[runs.Run]
  config_file: str
  overrides: dict
  workdir: str
  results: str
  topology: str

  @classmethod
  def from_flags(cls, values) -> "Wanted":
    """Raises a UserError if a flag is wrong, or a network's config impossible."""
    tables = tuple(sorted(set(_numbers(values.tables, int, "tables"))))
    if not tables:
      raise UserError("--tables= is empty; give some of the paper's tables, for instance --tables=3")
    chosen = cells.choose(tables, _numbers(values.scales, float, "scales"), _words(values.only))
    overrides = values.overrides

    def config_of(cell: cells.Cell) -> ml_collections.ConfigDict:
      return _config_of(cell, values.config_file, overrides)

    return cls(
      tables=tables,
      cells=chosen,
      runs=runs.list_runs(chosen, values.seeds, config_of),
      config_file=values.config_file,
      overrides=overrides,
      workdir=values.workdir,
      results=values.results or storage.join(values.workdir, results.FILE),
      topology=values.topology,
    )

  def read_results(self) -> list[results.Result]:
    """The results so far; see `runs.read_results`."""
    return runs.read_results(self.runs, self.results)


def _words(words: Sequence[str]) -> list[str]:
  return [word.strip() for word in words if word.strip()]


def _numbers(words: Sequence[str], kind: type, flag: str) -> list:
  try:
    return [kind(word) for word in _words(words)]
  except ValueError:
    raise UserError(f"--{flag}={','.join(words)} must be numbers separated by commas") from None


def _config_of(cell: cells.Cell, file: str, overrides: dict) -> ml_collections.ConfigDict:
  """A cell's config, with the fields that the command line sets.

  Raises:
    UserError: the file takes no arguments, the cell determines one of the fields, or its network does not have it.
  """
  try:
    config = config_file.load(f"{file}:{cell.arguments}")
  except UserError as error:
    raise UserError(f"--config={file} must take the arguments of configs/imagenet.py: {error}") from None
  for name, value in overrides.items():
    if name in _SET_BY_CELLS:
      raise UserError(f"--config.{name} cannot be set: the tables' networks and --seeds determine it")
    section, _, field = name.rpartition(".")
    holder = config[section] if section else config
    if field in holder:
      holder[field] = value
    elif field not in settings.COMPUTE_FIELDS:
      raise UserError(f"--config.{name}: the network of {cell.name} has no such field; --only leaves networks out")
  settings.check(config, training=True)
  if tasks.class_of(config).examples != "labels":
    raise UserError(f"--config={file} is of a detector; the tables are about classification, as configs/imagenet.py is")
  return config


def train(wanted: Wanted) -> None:
  """Trains what is missing."""
  storage.make_folder(wanted.workdir)
  done = runs.train_missing(wanted.runs, wanted.workdir, wanted.results, say)
  left = len(runs.missing(wanted.runs, done))
  state = (
    f"{left} of {len(wanted.runs)} runs are left to other processes"
    if left
    else f"all {len(wanted.runs)} runs are done"
  )
  say(f"{state}; {wanted.results} has {len(done)} results, which --report compares with the paper's")


def collect(wanted: Wanted) -> None:
  """Adds the results of runs that are finished, wherever they were trained."""
  before = wanted.read_results()
  done = runs.collect_finished(wanted.runs, wanted.workdir, wanted.results, say)
  say(f"{len(done) - len(before)} results added to {wanted.results}, which has {len(done)}")


def say(*lines: str) -> None:
  """Prints lines without delay, even when the output goes to a file."""
  print(*lines, sep="\n", flush=True)


def list_runs(wanted: Wanted) -> None:
  """Prints a table of the networks: seeds done and missing, error so far, hours to go."""
  done = wanted.read_results()
  left, rows = runs.missing(wanted.runs, done), []
  for cell in wanted.cells:
    own = [result for result in done if result.cell == cell.name]
    to_do = [run for run in left if run.cell == cell]
    seconds = [runs.seconds_expected(run, done) for run in to_do]
    hours = "-" if None in seconds else f"{sum(seconds) / 3600:.2f}"
    errors = " ".join(f"{result.error:.2f}" for result in own)
    million = next(run.multiply_adds for run in wanted.runs if run.cell == cell) / 1e6
    seeds = [" ".join(str(x.seed) for x in sorted(some, key=lambda x: x.seed)) for some in (own, to_do)]
    rows.append([cell.name, f"{million:.2f}", *seeds, errors, hours])
  say(
    tabulate.tabulate(
      rows, ["network", "M", "seeds done", "missing", "top-1 errors, %", "hours to go"], disable_numparse=True
    )
  )
  say(f"{len(wanted.runs) - len(left)} of {len(wanted.runs)} runs are done")
  seconds = [runs.seconds_expected(run, done) for run in left]
  if left:
    say("hours are not known before a run is done" if None in seconds else f"{duration(sum(seconds))} to go")


def report(wanted: Wanted) -> None:
  """Writes Markdown and plots beside the results.

  Raises:
    UserError: there are no results.
  """
  from shufflenet_jax.reproduction import report as written

  if not (done := wanted.read_results()):
    raise UserError(
      f"{wanted.results} has no results to report; without --report, the same command trains the networks"
    )
  for path in written.write(wanted.tables, wanted.cells, done, wanted.results):
    say(path)


def launch(wanted: Wanted) -> None:
  """Prints the commands that train the missing runs on Cloud TPU, and the chip-hours of each network, estimated."""
  from shufflenet_jax.reproduction import tpu_commands

  for line in tpu_commands.lines(runs.missing(wanted.runs, wanted.read_results()), wanted):
    say(line)
