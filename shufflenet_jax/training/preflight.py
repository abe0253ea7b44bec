"""How a training run begins: everything that can be wrong is checked before anything is written."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from shufflenet_jax import storage, tasks
from shufflenet_jax.checkpoints import checkpoint, recovery
from shufflenet_jax.checkpoints.checkpoint import Checkpoint
from shufflenet_jax.checkpoints.integrity import Damaged
from shufflenet_jax.config import settings
from shufflenet_jax.data import opening
from shufflenet_jax.data.arrays.arrays import Arrays
from shufflenet_jax.data.split import Split
from shufflenet_jax.distributed import hosts, mesh
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.tasks.task import Task
from shufflenet_jax.training import batches, fine_tune, machine, metrics
from shufflenet_jax.training.due import evaluation_owed
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import TrainState, init_state


@dataclasses.dataclass(kw_only=True)
class Run:
  """What the loop needs.

  Attributes:
    config: the whole config; with `init_from`, its network is the checkpoint's.
    workdir: the work directory, as `storage.normalize` returns paths.
    say: prints, on the first process.
    process: which of the run's processes this is.
    task: what is learned, with the network.
    optimizer, schedule: see `optimizer.sgd`.
    mesh: the devices.
    micro_batches: the number into which a device's part of a batch is split.
    statistics_group: how many images batch norm sees together.
    train_split, eval_split: the data.
    train_batches: this process's part of each training batch from `start_step` on, on the host.
    train_batch_to_devices: takes one of these; see `batches.Batches`.
    eval_batches: the evaluation's.
    state: a `TrainState` on the devices.
    start_step: number of steps done before this run.
    last_step: number of steps after which it ends.
    evaluation_owed: whether the evaluation of `start_step` is still to be made, because the run was stopped there.
    lines: of `metrics.jsonl`, up to `start_step`.
  """

  config: Any
  workdir: str
  say: Callable
  process: hosts.Process
  task: Task
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  mesh: jax.sharding.Mesh
  micro_batches: int
  statistics_group: int
  train_split: Split | Arrays
  eval_split: Split | Arrays
  train_batches: Iterator
  train_batch_to_devices: Callable
  eval_batches: batches.Batches
  state: TrainState
  start_step: int
  last_step: int
  evaluation_owed: bool
  lines: list[dict[str, float]]

  def to_devices(self, batch: dict[str, np.ndarray]) -> tuple[dict[str, jax.Array], np.ndarray]:
    """One of `train_batches` -> (the arrays that a step needs, on the devices; ids of this process's examples)."""
    return self.train_batch_to_devices(batch), batch["id"]


def prepare(config, workdir: str, devices=None, stop_after_step: int | None = None, splits=None) -> Run:
  """Checks everything that can be checked, and makes or restores the state; arguments and errors as in `loop.train`."""
  workdir = storage.normalize(workdir, "--workdir=")
  process = hosts.this_process()
  say = metrics.console(process)
  if storage.is_file(workdir):
    raise UserError(f"--workdir={workdir} is a file; name a directory")
  settings.check(config, training=True)
  resumed, arrays = _newest_whole(workdir, process, say) or (None, None)
  if resumed and resumed.step > config.num_train_steps:
    raise UserError(
      f"--workdir={workdir} is at step {resumed.step}, beyond config.num_train_steps={config.num_train_steps}; raise"
      " that number, or name another directory"
    )
  pretrained, replaced = _find_pretrained(config, resumed)
  model, counted = tasks.network_for_images(config)
  task = tasks.build(model, config)
  optimizer, schedule = sgd(config.optimizer, config.num_train_steps)
  data_mesh = mesh.data_mesh(devices)
  micro_batches = mesh.micro_batches(config, data_mesh.size)
  mesh.check_batch_size("config.eval_batch_size", config.eval_batch_size, data_mesh.size)
  statistics_group = config.batch_size // data_mesh.size // micro_batches
  changes = _changes(resumed, config) if resumed else {}
  start_step = resumed.step if resumed else 0
  last_step = min(config.num_train_steps, stop_after_step or config.num_train_steps)
  train_split, eval_split = splits or opening.open_splits(config, task.examples)
  _check_same_classes(resumed, train_split)
  training = batches.for_training(train_split, config, task, data_mesh)
  evaluation = batches.for_evaluation(eval_split, config, task, data_mesh)
  train_batches = training.host(start_step)
  if start_step < last_step:  # reads the first batches now, which shows whether the data can be read
    train_batches = itertools.chain([next(train_batches)], train_batches)
    next(evaluation.host(0))
  state = init_state(model, optimizer, config.data.image_size, config.seed)
  if resumed:
    state = _restored(resumed, arrays, state, config)
  elif pretrained:
    state = fine_tune.start_from(pretrained, state, task, train_split.class_names)
  notes = _overview(counted, config, data_mesh, train_split, eval_split)
  notes += _fine_tuning_notes(pretrained, replaced, task, train_split, resumed)
  notes += _resume_notes(resumed, changes, statistics_group)
  if not (resumed or pretrained):
    notes += task.notes_from_scratch()
  say(*notes, sep="\n")
  lines = _lines_until(workdir, start_step)
  return Run(
    config=config,
    workdir=workdir,
    say=say,
    process=process,
    task=task,
    optimizer=optimizer,
    schedule=schedule,
    mesh=data_mesh,
    micro_batches=micro_batches,
    statistics_group=statistics_group,
    train_split=train_split,
    eval_split=eval_split,
    train_batches=train_batches,
    train_batch_to_devices=training.to_devices,
    eval_batches=evaluation,
    state=mesh.replicate(state, data_mesh),
    start_step=start_step,
    last_step=last_step,
    evaluation_owed=bool(resumed) and evaluation_owed(start_step, config, _evaluated_steps(lines)),
    lines=lines,
  )


def _lines_until(workdir: str, step: int) -> list[dict[str, float]]:
  """The lines of `metrics.jsonl` up to a step: a run that ended after its newest checkpoint may have logged more."""
  return [line for line in metrics.read(workdir) if line["step"] <= step]


def _evaluated_steps(lines: list[dict[str, float]]) -> set[int]:
  return {line["step"] for line in lines if any(name.startswith("eval_") for name in line)}


def _newest_whole(workdir: str, process: hosts.Process, say):
  """`recovery.newest_whole`, by the first process, which also moves damaged ones; all read the one that it chose."""
  if process.count == 1:
    return recovery.newest_whole(workdir, say)
  whole = recovery.newest_whole(workdir, say) if process.index == 0 else None
  step = int(multihost_utils.broadcast_one_to_all(np.int32(whole[0].step if whole else -1)))
  if process.index == 0 or step < 0:
    return whole
  path = storage.join(workdir, checkpoint.FOLDER, str(step))
  try:
    found = checkpoint.read(path)
    if found is None:
      raise UserError(f"process {process.index} does not see {path}; all hosts must share --workdir")
    return found, found.read_arrays()
  except Damaged as error:
    raise RunFailed(f"process {process.index} cannot read {path}, which process 0 could read: {error}") from error


def _find_pretrained(config, resumed: Checkpoint | None) -> tuple[Checkpoint | None, dict[str, str]]:
  """The checkpoint that `init_from` names, and the fields of the config that it replaced: field -> `before -> now`."""
  if not config.init_from:
    return None, {}
  # A resumed run takes its network from its own checkpoint, because the one that it started from may no longer exist.
  if resumed and resumed.config.get("init_from") == config.init_from:
    return resumed, fine_tune.adopt(resumed, config)
  pretrained = checkpoint.find(config.init_from, "--config.init_from")
  return pretrained, fine_tune.adopt(pretrained, config)


def _changes(resumed: Checkpoint, config) -> dict[str, str]:
  """The fields that changed since the checkpoint; raises a UserError if it is of another task or network."""
  tasks.check_same_task(resumed.path, resumed.config, config, "choose another --workdir")
  before, now = checkpoint.to_json(resumed.config), checkpoint.to_json(config)
  settings.check_same_network(str(resumed.path), before["model"], now["model"], "choose another --workdir")
  return settings.differences(before, now)


def _check_same_classes(resumed: Checkpoint | None, train_split: Split | Arrays) -> None:
  if resumed and resumed.class_names != train_split.class_names:
    before, now = next((a, b) for a, b in zip(resumed.class_names, train_split.class_names) if a != b)
    raise UserError(
      f"{resumed.path} was trained on other classes ({train_split.name} has {now!r} in place of {before!r}); choose"
      " another --workdir"
    )


def _restored(resumed: Checkpoint, arrays: dict[str, np.ndarray], fresh: TrainState, config) -> TrainState:
  state = checkpoint.state_from(arrays, fresh, resumed.path)
  if state.skipped > config.max_skipped_steps:  # every further step would be a no-op
    raise UserError(
      f"config.max_skipped_steps={config.max_skipped_steps} is less than the {state.skipped} steps that had been"
      f" skipped when {resumed.path} was saved; set it to {state.skipped} or more"
    )
  return state


def _overview(counted, config, data_mesh, train_split, eval_split) -> list[str]:
  lines = [
    counted.overview(config.data.image_size),
    f"{config.data.name}: {train_split.num_examples:,} training and {eval_split.num_examples:,} evaluation examples;"
    f" batch {config.batch_size} over {data_mesh.size} x {data_mesh.devices.flat[0].device_kind}",
  ]
  if unused := config.model.num_classes - train_split.dataset_classes:
    lines.append(f"note: {unused} of the network's {config.model.num_classes} classes are not in the data")
  return lines + [f"{split.name}: {split.note}" for split in (train_split, eval_split) if split.note]


def _fine_tuning_notes(pretrained, replaced: dict[str, str], task: Task, train_split, resumed) -> list[str]:
  lines = []
  if pretrained and not resumed:
    lines.append(fine_tune.describe(pretrained, task, train_split.class_names, train_split.dataset_classes))
  if replaced:
    lines.append(f"{pretrained.path} determines the network and the scaling of pictures; replaced in the config:")
  return lines + [f"  {field}: {change}" for field, change in replaced.items()]


def _resume_notes(resumed: Checkpoint | None, changes: dict[str, str], statistics_group: int) -> list[str]:
  if not resumed:
    return []
  lines = [f"resuming from {resumed.path}", *(f"  changed since: {k}: {change}" for k, change in changes.items())]
  before = resumed.statistics_group
  if before and before != statistics_group:
    lines.append(
      f"note: batch norm saw {before} images together and now sees {statistics_group};"
      f" --config.batch_norm_group={before} keeps it at {before}"
    )
  return lines


class Lock(contextlib.ExitStack):
  """Keeps other runs on this machine out of a local work directory until the end of the context."""

  def __init__(self, workdir: str):
    super().__init__()
    self._workdir, self._taken = storage.normalize(workdir, "--workdir="), False

  def __enter__(self):
    super().__enter__()
    self.take()
    return self

  def take(self) -> None:
    """Takes the lock, unless this object has it already or there is no directory yet; may be called again.

    Raises:
      Locked: another process has it.
    """
    if self._taken or jax.process_index() or not storage.is_folder(self._workdir):
      return
    try:
      self.enter_context(storage.locked(self._workdir))
    except storage.Locked:
      message = f"another process is training in --workdir={self._workdir}; choose another, or end it"
      raise storage.Locked(message) from None
    self._taken = True


def open_workdir(run: Run, lock: Lock) -> None:
  """Makes and locks the work directory, and checks that checkpoints can be written.

  Raises:
    UserError: it cannot be written, or not all hosts share the directory. `Locked` if another process trains there.
  """
  if run.process.index == 0:
    size = sum(x.nbytes for x in jax.tree.leaves(run.state))
    try:
      storage.check_writable(run.workdir, size)
    except storage.StorageError as error:
      raise type(error)(f"--workdir={run.workdir} cannot take a checkpoint of {size / 1e6:.1f} MB: {error}") from None
    if run.start_step < run.last_step:
      checkpoint.write_config(run.workdir, run.config)
      machine.add_start(run.workdir, run.start_step)
  if run.process.count > 1:
    multihost_utils.sync_global_devices("open_workdir")
    if not storage.is_folder(run.workdir):
      raise UserError(f"process {run.process.index} does not see --workdir={run.workdir}; all hosts must share it")
  lock.take()  # now that there certainly is a directory
