"""The training loop."""

import contextlib

import jax

from shufflenet_jax.config import settings
from shufflenet_jax.distributed import hosts
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.training import metrics, nonfinite, prefetch, preflight, profiler, recorder
from shufflenet_jax.training.due import due_at
from shufflenet_jax.training.step import compile_train_step


def train(config, workdir: str, devices=None, stop_after_step=None, profile_steps: range = range(0), splits=None):
  """Trains to `config.num_train_steps`, from the newest whole checkpoint in `workdir` if there is one.

  Args:
    config: as `configs/imagenet.py` describes it.
    workdir: local or gs:// directory, which all hosts share.
    devices: JAX devices, all by default.
    stop_after_step: int; the run ends early after this step, with a checkpoint.
    profile_steps: the steps to profile, see `profiler`.
    splits: as `data.opening.open_splits` opens them from the config's data, for runs that share them.

  Returns:
    The final `TrainState`, and the last evaluation's figures (None if there was none).

  Raises:
    UserError: wrong input, before anything is written; or damaged data, found later; a run of one process then saves
      its state first. `storage.Locked` if another process trains in the same folder.
    Preempted, Interrupted: stopped by SIGTERM or Ctrl-C, with a checkpoint.
    RunFailed: a failure that may not occur again after a restart.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(hosts.lost_peers_end_the_run(config.peer_timeout_seconds))
    lock = stack.enter_context(preflight.Lock(workdir))
    run = preflight.prepare(config, workdir, devices, stop_after_step, splits)
    preflight.open_workdir(run, lock)
    stop = stack.enter_context(hosts.StopRequest())  # until the end, so that no save is cut off
    feed = prefetch.Feed(run.train_batches, run.to_devices)
    record = stack.enter_context(recorder.Recorder(run, feed, stop))
    stack.enter_context(feed)
    trace = stack.enter_context(profiler.Profiler(run, profile_steps))
    state, figures, stopped_at = _train(run, feed, record, stop, trace)
    record.saves.wait()  # a checkpoint that cannot be written matters more than a log that cannot
  if saves := record.saves.saves:
    run.say(f"training waited {record.saves.blocked_seconds:.2f} s for checkpoints to be saved ({saves} times)")
  if stopped_at is not None:
    raise stop.error(stopped_at, config.num_train_steps)
  run.say(f"done: step {int(state.step)} of {config.num_train_steps}", *metrics.places(workdir), sep="\n")
  return state, figures


def _train(run, feed, record, stop, trace):
  """Runs the steps. Returns the last state and evaluation, and the step of a stop on request, or None."""
  arguments = settings.step_arguments(run.config, run.micro_batches)
  step_fn = compile_train_step(run.mesh, task=run.task, optimizer=run.optimizer, schedule=run.schedule, **arguments)
  guard, state, first_step = nonfinite.Guard(run), run.state, run.start_step + 1
  figures = record.evaluate(run.start_step, state) if run.evaluation_owed else None
  if run.evaluation_owed and figures is None:  # given up for a stop request, so it is still owed
    return state, None, run.start_step
  for step in range(first_step, run.last_step + 1):
    try:
      # A stop request ends the wait for a batch, except for the first: before it there is nothing new to save.
      item = feed.get(record.pending, stop.asked) if step > first_step else feed.get(record.pending)
    except (UserError, RunFailed):
      guard.check(state)
      record.save_at_error(step - 1, state)
      raise
    if item is None:  # a stop was requested while the batch was late
      guard.check(state)
      if record.pending:
        record.log(step - 1)
      record.save(step - 1, state, None)
      return state, figures, step - 1
    batch, ids = item
    trace.before(step)
    state, step_metrics = step_fn(state, batch)
    record.pending.append(step_metrics)
    trace.after(step, step_metrics)
    guard.add(step, batch, ids, step_metrics)
    guard.check(state, keep=1)  # at most two steps in flight, so that batches do not pile up on the devices
    if step == first_step:
      jax.block_until_ready(state)
      stop.hold_interrupts()
      record.restart_clock(step)
    due = due_at(step, run.config, last_step=run.last_step, stopping=stop.reached(step))
    record.saves.check()
    if due.log or due.save:
      guard.check(state)
    if due.log:
      record.log(step)
    if due.evaluate:
      figures = record.evaluate(step, state)
    if due.save:
      record.save(step, state, figures if due.evaluate else None)
    if due.stop or (due.evaluate and figures is None):  # the evaluation was given up for a stop request
      return state, figures, step
  return state, figures, None
