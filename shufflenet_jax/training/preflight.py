"""How a training run begins: everything that can be wrong is looked at before anything is written."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from shufflenet_jax import storage
from shufflenet_jax.checkpoints import checkpoint, recovery
from shufflenet_jax.checkpoints.integrity import Damaged
from shufflenet_jax.config import settings
from shufflenet_jax.counting import multiply_adds
from shufflenet_jax.data import sources
from shufflenet_jax.data.split import Split
from shufflenet_jax.data.stream.training import train_batches
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.models import build
from shufflenet_jax.training import evaluation, fine_tune, metrics, optim, train_step


@dataclasses.dataclass
class Run:
  """What the loop needs.

  Attributes:
    config: the whole config; with `init_from`, its network is the checkpoint's.
    workdir: the work directory, as `storage.normalize` returns paths.
    say: prints, on the first process.
    process: (index, count).
    model, optimizer, schedule, mesh: see `train_step.train_step`.
    micro_batches, group: in which a device's images are taken, and how many images batch norm sees together.
    train_split, eval_split: what is read.
    batches: of training, from `start_step` on.
    state: a `TrainState` on the devices.
    start_step, last_step: steps done before, and when this run is over.
    evaluation_owed: whether the run was stopped when it should have evaluated.
    lines: of `metrics.jsonl`, up to `start_step`.
  """

  config: Any
  workdir: str
  say: Callable
  process: tuple[int, int]
  model: Any
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  mesh: jax.sharding.Mesh
  micro_batches: int
  group: int
  train_split: Split
  eval_split: Split
  batches: Iterator
  state: train_step.TrainState
  start_step: int
  last_step: int
  evaluation_owed: bool
  lines: list[dict[str, float]]


def prepare(config, workdir: str, devices=None, stop_after_step: int | None = None) -> Run:
  """Looks at all there is, and makes or restores the state. Arguments and errors as `train.train`'s."""
  workdir = storage.normalize(workdir, "--workdir=")
  process = (jax.process_index(), jax.process_count())
  say = metrics.console(process)
  if storage.is_file(workdir):
    raise UserError(f"--workdir={workdir} is a file; name a directory")
  settings.check(config, training=True)
  resumed, arrays = _newest_whole(workdir, process, say) or (None, None)
  pretrained, set_aside = None, {}
  if config.init_from:
    # A run that goes on has its network from its own checkpoint: what it began with may be gone.
    goes_on = resumed and resumed.config.get("init_from") == config.init_from
    pretrained = resumed if goes_on else checkpoint.find(config.init_from, "--config.init_from")
    set_aside = fine_tune.adopt(pretrained, config)
  model, counted = build.network_for_images(config)
  optimizer, schedule = optim.sgd(config.optimizer, config.num_train_steps)
  data_mesh = mesh.data_mesh(devices)
  micro_batches = mesh.micro_batches(config, data_mesh.size)
  group = config.batch_size // data_mesh.size // micro_batches
  mesh.check_batch_size("config.eval_batch_size", config.eval_batch_size, data_mesh.size)
  if resumed:
    before, now = checkpoint.to_json(resumed.config), checkpoint.to_json(config)
    settings.check_same_network(str(resumed.path), before["model"], now["model"], "choose another --workdir")
  start_step = resumed.step if resumed else 0
  last_step = min(config.num_train_steps, stop_after_step or config.num_train_steps)
  train_split, eval_split = _open_splits(config, resumed)
  batches = train_batches(
    train_split,
    config.data,
    batch_size=config.batch_size,
    num_classes=config.model.num_classes,
    seed=config.seed,
    start_step=start_step,
    process=process,
    warn=functools.partial(print, flush=True),
  )
  if start_step < last_step:
    batches = itertools.chain([next(batches)], batches)
    next(evaluation.batches(eval_split, config))

  state = train_step.init_state(model, optimizer, config.data.image_size, config.seed)
  if resumed:
    state = checkpoint.state_from(arrays, state, resumed.path)
    if state.skipped > config.max_skipped_steps:  # or no step would change anything
      raise UserError(
        f"config.max_skipped_steps={config.max_skipped_steps} is less than the {state.skipped} steps that were skipped"
        f" by {resumed.path}; set it to {state.skipped} or more"
      )
  elif pretrained:
    state = fine_tune.start_from(pretrained, state, train_split.class_names)
  state = mesh.replicate(state, data_mesh)

  say(_overview(counted, config, data_mesh, train_split, eval_split))
  if pretrained and not resumed:
    say(fine_tune.describe(pretrained, train_split.class_names, train_split.dataset_classes))
  if set_aside:
    say(f"{pretrained.path} sets the network and the scaling of pictures; the config's own are set aside:")
    say(*(f"  {k}: {v}" for k, v in set_aside.items()), sep="\n")
  if resumed:
    say(f"resuming from {resumed.path}")
    say(*(f"  changed since: {k}: {v}" for k, v in settings.differences(before, now).items()), sep="\n")
    if resumed.group and resumed.group != group:
      say(
        f"note: batch norm saw {resumed.group} images together and sees {group} now;"
        f" --config.batch_norm_group={resumed.group} keeps it as it was"
      )
  # A run that died after its last checkpoint has logged steps that will be done again.
  lines = [line for line in metrics.read(workdir) if line["step"] <= start_step]
  due = start_step % config.eval_every_steps == 0 or start_step == config.num_train_steps
  owed = bool(resumed and due) and not any(line["step"] == start_step and "eval_top1" in line for line in lines)
  return Run(
    config, workdir, say, process, model, optimizer, schedule, data_mesh, micro_batches, group, train_split,
    eval_split, batches, state, start_step, last_step, owed, lines,
  )  # fmt: skip


def _newest_whole(workdir: str, process: tuple[int, int], say):
  """As `recovery.newest_whole`; the first process looks and sets aside, all read what it chose."""
  if process[1] == 1:
    return recovery.newest_whole(workdir, say)
  whole = recovery.newest_whole(workdir, say) if process[0] == 0 else None
  step = int(multihost_utils.broadcast_one_to_all(np.int32(whole[0].step if whole else -1)))
  if process[0] == 0 or step < 0:
    return whole
  path = storage.join(workdir, checkpoint.FOLDER, str(step))
  try:
    found = checkpoint.read(path)
    if found is None:
      raise UserError(f"process {process[0]} does not see {path}; all hosts must share --workdir")
    return found, found.read_arrays()
  except Damaged as error:
    raise RunFailed(f"process {process[0]} cannot read {path}, which process 0 could: {error}") from error


def _open_splits(config, resumed) -> tuple[Split, Split]:
  classes = config.model.num_classes
  train_split = sources.open_split(config.data, config.data.train_split, classes, every_class=True)
  if resumed and resumed.class_names != train_split.class_names:
    before, now = next((a, b) for a, b in zip(resumed.class_names, train_split.class_names) if a != b)
    raise UserError(
      f"{resumed.path} was trained on other classes ({before!r} is {now!r} in {train_split.name}); choose another"
      " --workdir"
    )
  names = train_split.class_names[: train_split.dataset_classes]
  return train_split, sources.open_split(config.data, config.data.eval_split, classes, names, every_class=True)


def _overview(counted, config, data_mesh, train_split, eval_split) -> str:
  text = multiply_adds.overview(counted, config.data.image_size)
  text += (
    f"\n{config.data.name}: {train_split.num_examples:,} training and {eval_split.num_examples:,} evaluation examples;"
    f" batch {config.batch_size} over {data_mesh.size} x {data_mesh.devices.flat[0].device_kind}"
  )
  if unused := config.model.num_classes - train_split.dataset_classes:
    text += f"\nnote: {unused} of the network's {config.model.num_classes} classes are not in the data"
  for split in (train_split, eval_split):
    if split.note:
      text += f"\n{split.name}: {split.note}"
  return text


def open_workdir(run: Run) -> None:
  """Makes the work directory and writes as much there as a checkpoint takes, so that no run trains unsaved.

  Raises:
    UserError: that fails, or not all hosts share the directory.
  """
  if run.process[0] == 0:
    size = sum(x.nbytes for x in jax.tree.leaves(run.state))
    try:
      storage.check_writable(run.workdir, size)
    except storage.StorageError as error:
      raise type(error)(f"--workdir={run.workdir} cannot take a checkpoint of {size / 1e6:.1f} MB: {error}") from None
    if run.start_step < run.last_step:
      checkpoint.write_config(run.workdir, run.config)
  if run.process[1] > 1:
    multihost_utils.sync_global_devices("open_workdir")
    if not storage.is_folder(run.workdir):
      raise UserError(f"process {run.process[0]} does not see --workdir={run.workdir}; all hosts must share it")


class Lock(contextlib.ExitStack):
  """Keeps a second run of this machine out of a local work directory, for as long as the process lives."""

  def __init__(self, workdir: str):
    super().__init__()
    self._workdir, self._taken = storage.normalize(workdir, "--workdir="), False

  def take(self) -> None:
    """Takes it, unless there is no directory yet; may be called again when there is.

    Raises:
      UserError: another process has it.
    """
    if self._taken or jax.process_index() or not storage.is_folder(self._workdir):
      return
    try:
      self.enter_context(storage.locked(self._workdir))
    except storage.Locked:
      raise UserError(f"another process is training in --workdir={self._workdir}; choose another, or end it") from None
    self._taken = True
