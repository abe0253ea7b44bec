"""What a run leaves in its work directory while it trains: log lines, evaluations, curves and checkpoints."""

import contextlib

import jax

from shufflenet_jax.checkpoints import saver
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.models import build
from shufflenet_jax.training import evaluation, metrics
from shufflenet_jax.training.step import compile_eval_step


class Recorder(contextlib.ExitStack):
  """Records a run. The end of the context closes the logs and waits for the last save.

  Attributes:
    pending: metrics of the steps since the last log line, on the devices: they may not be computed yet.
    saves: the `Saver`.
  """

  def __init__(self, run, feed, stop):
    """
    Args:
      run: a `preflight.Run`.
      feed: the `prefetch.Feed` of its batches; log lines show which share of the time the devices waited for them.
      stop: the `hosts.StopRequest`; in a run of only one process, it may make the run give up an evaluation.
    """
    super().__init__()
    self._run, self._feed, self._stop = run, feed, stop
    self._evaluate = compile_eval_step(run.mesh, task=run.task)
    self._saved_step = run.start_step
    self.pending = []
    self.saves = saver.Saver(
      run.workdir, run.config.keep_checkpoints, best=run.task.best, larger_is_better=run.task.larger_is_better
    )

  def __enter__(self):
    run = self._run
    with contextlib.ExitStack() as stack:  # ends the saver's thread if the logs cannot be opened
      stack.enter_context(self.saves)
      if not metrics.has_tensorboard_writer():
        run.say("note: no TensorBoard files, because clu or TensorFlow is not installed")
      if run.start_step < run.last_step:
        run.say("compiling the training step ...")
      self._logs = stack.enter_context(metrics.Logs(run.workdir, run.lines, run.process))
      self.push(stack.pop_all())
    self._progress = metrics.Progress(run.start_step, run.config.num_train_steps, run.config.batch_size, self._feed)
    return self

  def restart_clock(self, step: int) -> None:
    """Leaves what came before, such as compilation, out of the speed that log lines show."""
    self._progress.restart(step)

  def log(self, step: int) -> None:
    """Prints and writes a line about the pending steps, for which it waits."""
    task = self._run.task
    means = metrics.mean(jax.device_get(self.pending), task.train_metrics)
    self.pending.clear()
    line, speed = self._progress.line(step, means, task)
    self._run.say(line)
    self._logs.write(step, means | speed | {"save_seconds": self.saves.blocked_seconds})

  def evaluate(self, step: int, state) -> dict[str, float] | None:
    """Evaluates the state of a step, prints and writes the figures, and draws the curves.

    Returns:
      The figures; None if the evaluation was given up because a stop was requested.

    Raises:
      UserError, RunFailed: the data cannot be read. If this is the only process, it saves the state.
    """
    run = self._run
    try:
      figures = evaluation.run(self._evaluate, run.task, state, run.eval_split, run.eval_batches, self._stop.asked)
    except (UserError, RunFailed):
      self.save_at_error(step, state)
      raise
    if figures is None:
      return None
    run.say(f"  evaluation at step {step}: {evaluation.describe(run.task, figures)}")
    self._logs.write(step, {f"eval_{k}": v for k, v in figures.items() if k not in evaluation.COUNTS})
    self._logs.draw_curves(f"{build.describe(run.config.model)} on {run.config.data.name}", run.task.panels)
    self._logs.sync_soon()
    self._progress.restart(step)
    return figures

  def save(self, step: int, state, figures: dict[str, float] | None) -> None:
    """Begins to save a checkpoint, unless this step is saved already; `figures` are from an evaluation at this step."""
    if step <= self._saved_step:
      return
    self._saved_step, run = step, self._run
    self._logs.sync_soon()
    self.saves.save(step, state, run.config, run.train_split.class_names, figures, run.statistics_group)

  def save_at_error(self, step: int, state) -> None:
    """Saves before an error ends the run, if this is the only process: several would have to agree on the step."""
    if self._run.process.count == 1:
      self.save(step, state, None)
