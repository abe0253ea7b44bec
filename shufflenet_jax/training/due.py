"""What is due after a training step: a log line, an evaluation, a checkpoint, the end of the run."""

from typing import NamedTuple


class Due(NamedTuple):
  """What is due at a step, in this order.

  Attributes:
    log: a log line.
    evaluate: an evaluation.
    save: a checkpoint.
    stop: the end of the run, on request.
  """

  log: bool
  evaluate: bool
  save: bool
  stop: bool


def due_at(step: int, config, *, last_step: int, stopping: bool) -> Due:
  """What is due at a step.

  Once the run has been asked to stop, there is no time for an evaluation: the next start makes up for it.

  Args:
    step: number of steps done.
    config: with `log_every_steps`, `eval_every_steps` and `checkpoint_every_steps`.
    last_step: the step at which a log line, an evaluation and a checkpoint are always due.
    stopping: whether the run was asked to stop.
  """
  at_end = step == last_step
  evaluation = step % config.eval_every_steps == 0 or at_end
  return Due(
    log=step % config.log_every_steps == 0 or at_end or stopping,
    evaluate=evaluation and not stopping,
    save=step % config.checkpoint_every_steps == 0 or evaluation or stopping,
    stop=stopping,
  )


def evaluation_owed(step: int, config, evaluated_steps: set[int]) -> bool:
  """Whether a run that resumes at a step has yet to make the evaluation of that step, because it was stopped there."""
  due = step % config.eval_every_steps == 0 or step == config.num_train_steps
  return step > 0 and due and step not in evaluated_steps
