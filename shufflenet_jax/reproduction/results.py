"""`results.jsonl`: one line for each finished run."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Collection, Iterator

from flax import traverse_util

from shufflenet_jax import storage
from shufflenet_jax.config import fields
from shufflenet_jax.config.settings import COMPUTE_FIELDS
from shufflenet_jax.errors import CommandEnded, UserError

FILE = "results.jsonl"
# Fields of a config that may differ between runs that are compared: they do not determine what is learned.
NOT_THE_RECIPE = {
  "seed", "eval_batch_size", "log_every_steps", "eval_every_steps", "checkpoint_every_steps", "keep_checkpoints",
  "max_skipped_steps", "peer_timeout_seconds", "data.data_dir", "data.shuffle_bytes",
  *(f"model.{field}" for field in COMPUTE_FIELDS if field != "dtype"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished run.

  Attributes:
    cell: name of its network, see `cells.Cell`.
    seed: of initialisation, order and augmentation.
    top1, top5: accuracies on the evaluation split, fractions.
    loss: mean cross-entropy there; None if it was not finite.
    multiply_adds: of the network, for one picture of the config's size.
    steps: of training.
    images: seen in training, counting repetitions.
    seconds: of training, without compiling and evaluating.
    hardware: count and name of the devices; of each start of the run, if it was moved.
    versions: of the libraries, at its last start: name -> version.
    commit: of this project, of each start if they differ; "" if not known.
    config: the whole config, as JSON values.
  """

  cell: str
  seed: int
  top1: float
  top5: float
  loss: float | None
  multiply_adds: int
  steps: int
  images: int
  seconds: float
  hardware: str
  versions: dict
  commit: str
  config: dict

  @property
  def error(self) -> float:
    """Top-1 error, percent."""
    return 100 * (1 - self.top1)


def read(path: str) -> list[Result]:
  """The results in a file; [] if there is none.

  Raises:
    UserError: a line is damaged, or repeats a run that another line has.
  """
  try:
    lines = storage.read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
  except FileNotFoundError:
    return []
  found, line_of = [], {}
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      result = _parse(line)
      _check(result)
    except (CommandEnded, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
      raise UserError(
        f"line {number} of {path} is damaged ({error}): {line[:60]!r}; correct or remove it. A removed line comes back"
        " at the next start, without training if the run's folder still exists"
      ) from None
    before = line_of.setdefault((result.cell, result.seed), number)
    if before != number:
      raise UserError(f"lines {before} and {number} of {path} are both {result.cell}, seed {result.seed}; remove one")
    found.append(result)
  return found


def _parse(line: str) -> Result:
  values = json.loads(line)
  if not isinstance(values, dict):
    raise ValueError("it is not a JSON object")
  names = {field.name for field in dataclasses.fields(Result)}
  if wrong := sorted(names ^ values.keys()):
    raise ValueError(f"{wrong[0]} is {'missing' if wrong[0] in names else 'not a field of a result'}")
  return Result(**values)


def _check(result: Result) -> None:
  """Raises a TypeError, ValueError or other error if a value is not of its field's type or out of range."""
  for field in dataclasses.fields(result):
    value, kind = getattr(result, field.name), field.type
    accepted = (int, float) if kind is float else (int, float, type(None)) if kind == float | None else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
      raise TypeError(f"{field.name}={value!r} is of another type")
  if not 0 <= result.top1 <= result.top5 <= 1:
    raise ValueError(f"top1={result.top1} and top5={result.top5} must be fractions, the second the larger")
  if not (math.isfinite(result.seconds) and math.isfinite(result.loss or 0)):
    raise ValueError(f"seconds={result.seconds} and loss={result.loss} must be finite")
  if min(result.seed, result.seconds, result.multiply_adds - 1, result.steps - 1) < 0:
    raise ValueError("a number is negative or 0")
  config = fields.complete(result.config)
  if result.images != result.steps * config["batch_size"] or result.steps != config["num_train_steps"]:
    raise ValueError(f"steps={result.steps} and images={result.images} are not those of the config")


@contextlib.contextmanager
def unshared(path: str) -> Iterator[None]:
  """Keeps other processes of this machine from the results, to read and then write them; waits for those that do so."""
  folder = storage.parent(path)
  storage.make_folder(folder)
  with contextlib.ExitStack() as stack:
    while True:
      try:
        stack.enter_context(storage.locked(folder))
        break
      except storage.Locked:
        time.sleep(0.1)
    yield


def write(path: str, results: list[Result]) -> None:
  """Writes all results, the whole file or nothing."""
  storage.write_text(path, "".join(json.dumps(dataclasses.asdict(result)) + "\n" for result in results))


def check_same_recipe(path: str, results: Collection[Result], configs: dict[str, dict]) -> None:
  """Compares the configs that the results were trained with to those of the run.

  Args:
    path: of the results, for the message.
    results: those read from there.
    configs: cell's name -> its config, as JSON values. Results of other cells are not compared.

  Raises:
    UserError: they differ in a field that matters.
  """
  for result in results:
    if result.cell not in configs:
      continue
    if changed := changed_fields(result.config, configs[result.cell]):
      raise UserError(
        f"{path} has a result of {result.cell} with another config ({changed}); use that config, or choose another"
        " --workdir or --results"
      )


def changed_fields(before: dict, now: dict) -> str:
  """The fields that matter and differ between two configs, as JSON values: `a: 1 then, 2 now; ...`; "" if none."""
  before, now = (_recipe(config) for config in (fields.complete(before), now))
  if "arrays" in (before["data.name"], now["data.name"]):  # which may hold the pictures of any other source
    for recipe in (before, now):
      for field in ("data.name", "data.train_split", "data.eval_split", "data.in_memory"):
        del recipe[field]
  names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
  return "; ".join(f"{name}: {before.get(name)} then, {now.get(name)} now" for name in names[:4])


def _recipe(config: dict) -> dict:
  return {k: v for k, v in traverse_util.flatten_dict(config, sep=".").items() if k not in NOT_THE_RECIPE}
