"""Trains the runs whose results are missing, one after the other; several processes of a machine may share the work.

Each process locks the folder of the run that it trains. The others go on with the next one. Buckets have no locks.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence

import jax

from shufflenet_jax import storage, tasks
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.checkpoints.integrity import Damaged
from shufflenet_jax.data import opening
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.progress import duration
from shufflenet_jax.reproduction import results
from shufflenet_jax.reproduction.cells import Cell
from shufflenet_jax.reproduction.results import Result
from shufflenet_jax.training import loop, machine, metrics


@dataclasses.dataclass(frozen=True)
class Run:
  """A cell and a seed.

  Attributes:
    cell: the network.
    seed: of initialisation, order and augmentation.
    config: the cell's config with this seed.
    multiply_adds: of the cell's network, for one picture of the config's size.
  """

  cell: Cell
  seed: int
  config: object
  multiply_adds: int

  @property
  def images(self) -> int:
    """Images seen in training."""
    return self.config.num_train_steps * self.config.batch_size

  def folder(self, workdir: str) -> str:
    """Its work directory, below that of all runs."""
    return storage.join(workdir, self.cell.name, f"seed_{self.seed}")


def list_runs(cells: Sequence[Cell], seeds: int, config_of: Callable[[Cell], object]) -> list[Run]:
  """The runs of these cells, ordered by scale, then by seed, then by multiply-adds.

  Args:
    cells: as `cells.choose` orders them.
    seeds: how many, from 0.
    config_of: a cell's config.

  Raises:
    UserError: a config is impossible.
  """
  configs = {cell: config_of(cell) for cell in cells}
  counted = {cell: tasks.network_for_images(config)[1].multiply_adds for cell, config in configs.items()}
  order = sorted(
    ((cell, seed) for cell in cells for seed in range(seeds)), key=lambda run: (run[0].scale, run[1], counted[run[0]])
  )
  runs = []
  for cell, seed in order:
    config = configs[cell].copy_and_resolve_references()
    config.seed = seed
    runs.append(Run(cell, seed, config, counted[cell]))
  return runs


def read_results(runs: Sequence[Run], results_file: str) -> list[Result]:
  """The results so far.

  Raises:
    UserError: they are damaged, or those of these runs' cells are of another config.
  """
  done = results.read(results_file)
  results.check_same_recipe(results_file, done, {run.cell.name: checkpoint.to_json(run.config) for run in runs})
  return done


def missing(runs: Sequence[Run], done: Collection[Result]) -> list[Run]:
  """The runs without a result."""
  have = {(result.cell, result.seed) for result in done}
  return [run for run in runs if (run.cell.name, run.seed) not in have]


def seconds_expected(run: Run, done: Collection[Result]) -> float | None:
  """How long a run will take, by the rates of finished runs, on this hardware if there are any; None without any.

  The rate is that of the same network, or else that of the network with the most similar number of multiply-adds,
  scaled by their ratio.
  """
  here = [r for r in done if r.hardware == machine.hardware()]
  done = here or done
  if not done:
    return None
  same = [r for r in done if r.cell == run.cell.name]
  nearest = min(done, key=lambda r: abs(r.multiply_adds - run.multiply_adds)).multiply_adds
  used = same or [r for r in done if r.multiply_adds == nearest]
  per_image = sum(r.seconds / r.images for r in used) / len(used)
  return per_image * run.images * (1 if same else run.multiply_adds / nearest)


def train_missing(runs: Sequence[Run], workdir: str, results_file: str, say: Callable[[str], None]) -> list[Result]:
  """Trains the runs without a result, resuming those that were begun, and adds a line to the results after each.

  Runs that fail, as when the loss is not finite, do not keep the others from being trained. Runs that another process
  of this machine is training are left to it.

  Args:
    runs: all that are wanted, in the order in which they are trained.
    workdir: each run has a work directory below it, `<cell>/seed_<seed>`.
    results_file: what is done; read before and written after each run, so that several processes may share it.
    say: prints a line.

  Returns:
    All results, without those that other processes are still training.

  Raises:
    UserError: the data are absent or do not fit, or the results or a run's folder are damaged or of another config.
      Finished runs keep their results.
    Preempted, Interrupted: as from `loop.train`; the next call resumes.
    RunFailed: some runs failed; the message names them.
  """
  done = collect_finished(runs, workdir, results_file, say)
  with results.unshared(results_file):  # shows before anything is trained whether the file can be written
    results.write(results_file, results.read(results_file))
  splits, failed = None, []
  for run in missing(runs, done):
    done = results.read(results_file)
    if not missing([run], done):
      continue  # another process has trained it meanwhile
    # The data are the same for all runs, because only crops differ between their configs.
    splits = splits or opening.open_splits(run.config)
    number = len(runs) - len(missing(runs, done)) + 1
    say(f"run {number} of {len(runs)}: {run.cell.label}, seed {run.seed}{_time_left(runs, done)}")
    folder = run.folder(workdir)
    storage.make_folder(folder)  # an absent folder cannot be locked
    try:
      loop.train(run.config, folder, splits=splits)
      _add(run, workdir, results_file, say)
    except storage.Locked:
      say("another process is training this network with this seed")
    except UserError as error:
      raise UserError(f"{run.cell.name}, seed {run.seed}: {error}") from None
    except RunFailed as error:
      failed.append(f"{run.cell.name}, seed {run.seed}: {error}")
      say(failed[-1])
    jax.clear_caches()  # no other run has the same programs
  if failed:
    raise RunFailed(f"{len(failed)} runs failed: {'; '.join(failed)}")
  return results.read(results_file)


def collect_finished(runs: Sequence[Run], workdir: str, results_file: str, say: Callable[[str], None]) -> list[Result]:
  """Adds the results of runs whose folders show that they are finished; the rest is as in `train_missing`."""
  done = read_results(runs, results_file)
  for run in missing(runs, done):
    _check_same_config(run, run.folder(workdir))
  for run in missing(runs, done):
    if _is_finished(run, run.folder(workdir)):
      done = _add(run, workdir, results_file, say)
  return done


def _add(run: Run, workdir: str, results_file: str, say: Callable[[str], None]) -> list[Result]:
  """Adds a finished run's result, unless another process has done so meanwhile; returns all results."""
  with results.unshared(results_file):
    done = results.read(results_file)
    if not missing([run], done):
      return done
    done.append(_result(run, run.folder(workdir)))
    results.write(results_file, done)
  say(f"{run.cell.label}, seed {run.seed}: top-1 error {done[-1].error:.2f} %, written to {results_file}")
  return done


def _time_left(runs: Sequence[Run], done: Collection[Result]) -> str:
  left = [seconds_expected(run, done) for run in missing(runs, done)]
  return f"; about {duration(sum(left))} left for all" if None not in left else ""


def _check_same_config(run: Run, folder: str) -> None:
  """Raises a UserError if the run was begun with a config that gives other results, or its config cannot be read."""
  path = storage.join(folder, checkpoint.CONFIG)
  try:
    before = json.loads(storage.read_bytes(path))
    changed = results.changed_fields(before, checkpoint.to_json(run.config))
  except FileNotFoundError:
    return
  except ValueError:
    raise UserError(f"{path} is damaged; remove {folder}") from None
  if changed:
    raise UserError(f"{folder} was begun with another config ({changed}); use that config, or choose another --workdir")


def _is_finished(run: Run, folder: str) -> bool:
  """Whether the run needs no more training, on whichever machine it was trained, and is evaluated."""
  last = dict(checkpoint.steps_in(folder)).get(run.config.num_train_steps)
  try:
    return last is not None and checkpoint.read(last) is not None and _last_evaluation(run, folder) is not None
  except Damaged:  # training moves the checkpoint out of the way
    return False


def _last_evaluation(run: Run, folder: str) -> dict | None:
  """The figures of the evaluation at the last step, or None."""
  lines = [line for line in metrics.read(folder) if line["step"] == run.config.num_train_steps and "eval_top1" in line]
  return lines[-1] if lines else None


def _result(run: Run, folder: str) -> Result:
  """The result of a finished run, from its logs.

  Raises:
    RunFailed: they lack the last evaluation.
  """
  last = _last_evaluation(run, folder)
  if last is None:
    raise RunFailed(f"{storage.join(folder, metrics.FILE)} has no evaluation of the last step; remove {folder}")
  starts = machine.read(folder)
  config = checkpoint.to_json(run.config)
  config["data"]["data_dir"] = ""  # a path of this machine
  return Result(
    cell=run.cell.name,
    seed=run.seed,
    top1=last["eval_top1"],
    top5=last["eval_top5"],
    loss=last.get("eval_loss"),
    multiply_adds=run.multiply_adds,
    steps=run.config.num_train_steps,
    images=run.images,
    seconds=round(_training_seconds(metrics.read(folder), run.config.batch_size), 1),
    hardware=" and ".join(dict.fromkeys(start["hardware"] for start in starts)),
    versions=starts[-1]["versions"] if starts else {},
    commit=" and ".join(dict.fromkeys(start["commit"] for start in starts)),
    config=config,
  )


def _training_seconds(lines: list[dict], batch_size: int) -> float:
  """Training time in seconds, from the steps between log lines and their speeds; also of a run that was interrupted."""
  total = previous = 0
  speed = None
  for line in lines:
    if "train_loss" in line or "images_per_second" in line:
      speed = line.get("images_per_second", speed)
      total += (line["step"] - previous) * batch_size / speed if speed else 0
      previous = line["step"]
  return total
