"""The training loop."""

import contextlib

import jax

from shufflenet_jax.checkpoints import saver
from shufflenet_jax.config import settings
from shufflenet_jax.distributed import hosts, mesh
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.models import build
from shufflenet_jax.training import evaluation, metrics, nonfinite, prefetch, preflight, train_step


def train(config, workdir: str, devices=None, stop_after_step: int | None = None):
  """Trains to `config.num_train_steps`, from the newest whole checkpoint in `workdir` if there is one.

  Args:
    config: as `configs/imagenet.py` describes it.
    workdir: local or gs:// directory, which all hosts share.
    devices: JAX devices, all by default.
    stop_after_step: ends early there, with a checkpoint.

  Returns:
    The final `TrainState`, and the last evaluation's figures (None if there was none).

  Raises:
    UserError: wrong input. Nothing has been written, or, where the data turn out damaged later, what one process
      trained is saved (several cannot: the others only see the one end).
    Preempted: stopped by SIGTERM, with a checkpoint.
    Interrupted: the same, by Ctrl-C.
    RunFailed: what another start may mend.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(hosts.lost_peers_end_the_run(config.peer_timeout_seconds))
    lock = stack.enter_context(preflight.Lock(workdir))
    lock.take()
    run = preflight.prepare(config, workdir, devices, stop_after_step)
    say, state, evaluated = run.say, run.state, None
    preflight.open_workdir(run)
    lock.take()
    stop = stack.enter_context(hosts.StopRequest())  # to the end, so that no save is cut off
    saves = stack.enter_context(saver.Saver(run.workdir, config.keep_checkpoints))
    if run.start_step < run.last_step:
      say("compiling the training step ...")
    eval_fn = train_step.compile_eval_step(run.mesh, model=run.model, **settings.picture_scaling(config))
    step_fn = train_step.compile_train_step(
      run.mesh,
      model=run.model,
      optimizer=run.optimizer,
      schedule=run.schedule,
      **settings.step_arguments(config, run.micro_batches),
    )

    def save(step, figures):
      nonlocal saved_at
      if step > saved_at:
        saved_at = step
        logs.sync_soon()
        saves.save(step, state, config, run.train_split.class_names, figures, run.group)

    def save_at_error(step):
      # Of several processes, the others would have to take part; they only see this one end.
      if run.process[1] == 1:
        save(step, None)

    def to_devices(batch):
      ids = batch.pop("id")
      return mesh.split_batch(batch, run.mesh), ids

    logs = stack.enter_context(metrics.Logs(run.workdir, run.lines, run.process))
    batches = stack.enter_context(prefetch.Feed(run.batches, to_devices))
    progress = metrics.Progress(run.start_step, config.num_train_steps, config.batch_size, batches)

    def log(step):
      line, figures = progress.line(step, means := metrics.mean(jax.device_get(pending)))
      pending.clear()
      say(line)
      logs.write(step, means | figures | {"save_seconds": saves.blocked_seconds})

    def evaluate_at(step):
      figures = evaluation.run(eval_fn, state, run.eval_split, config, run.mesh, stop.asked)
      if figures is None:
        return None
      say(f"  evaluation at step {step}: {evaluation.describe(figures)}")
      logs.write(step, {f"eval_{k}": figures[k] for k in ("loss", "top1", "top5")})
      logs.draw_curves(f"{build.describe(config.model)} on {config.data.name}")
      logs.sync_soon()
      progress.restart(step)
      return figures

    guard, pending, stopped_at, saved_at = nonfinite.Guard(run), [], None, run.start_step
    if run.evaluation_owed:
      evaluated = evaluate_at(run.start_step)
      if evaluated is None:
        stopped_at = run.start_step
    for step in range(run.start_step + 1, run.last_step + 1) if stopped_at is None else ():
      try:
        # The first batch is there already; before it is done there is nothing to stop for.
        item = batches.get(pending, stop.asked) if step > run.start_step + 1 else batches.get(pending)
      except (UserError, RunFailed):
        guard.check(state)
        save_at_error(step - 1)
        raise
      if item is None:  # asked to stop while the batch is late
        stopped_at = step - 1
        guard.check(state)
        if pending:
          log(stopped_at)
        save(stopped_at, None)
        break
      batch, ids = item
      state, figures = step_fn(state, batch)
      pending.append(figures)
      guard.add(step, batch, ids, figures)
      guard.check(state, keep=1)  # two steps under way at most, so that batches do not pile up
      if step == run.start_step + 1:
        jax.block_until_ready(state)
        stop.hold_interrupts()
        progress.restart(step)
      at_end, stopping = step == run.last_step, stop.reached(step)
      evaluation_due = step % config.eval_every_steps == 0 or at_end
      logging = step % config.log_every_steps == 0 or at_end or stopping
      saving = step % config.checkpoint_every_steps == 0 or evaluation_due or stopping
      saves.check()
      if logging or saving:
        guard.check(state)
      if logging:
        log(step)
      if evaluation_due and not stopping:
        try:
          evaluated = evaluate_at(step)
        except (UserError, RunFailed):
          save_at_error(step)
          raise
        stopping = evaluated is None
      if stopping:  # there is no time for an evaluation; if one is due, the next start makes it
        save(step, None)
        stopped_at = step
        break
      if saving:
        save(step, evaluated if evaluation_due else None)
    saves.wait()  # before the logs are closed, so that a failed save is reported rather than failed logs
  if saves.saves:
    say(f"saving checkpoints kept the training waiting for {saves.blocked_seconds:.2f} s ({saves.saves} times)")
  if stopped_at is not None:
    raise stop.error(stopped_at, config.num_train_steps)
  say(
    f"done: step {max(run.start_step, run.last_step)} of {config.num_train_steps}", *metrics.places(workdir), sep="\n"
  )
  return state, evaluated
