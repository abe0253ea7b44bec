"""The paper's optimiser (section 4): SGD with momentum, weight decay, a learning rate that falls linearly."""

import jax
import optax

from shufflenet_jax.errors import UserError

DECAY = {
  "all": lambda params: jax.tree.map(lambda p: True, params),
  "kernels": lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
}


def linear_decay(peak: float, num_steps: int, warmup_steps: int = 0) -> optax.Schedule:
  """Learning rate: linear 0 -> `peak` over `warmup_steps`, then linear `peak` -> 0 at `num_steps`.

  Args:
    peak: largest learning rate.
    num_steps: the step at which it reaches 0.
    warmup_steps: with 0 the rate begins at its peak, as in the paper.
  """
  decay = optax.linear_schedule(peak, 0.0, num_steps - warmup_steps)
  if not warmup_steps:
    return decay
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps])


def sgd(config, num_steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optimiser and its schedule from a config's `optimizer` section.

  Weight decay is added to the gradient before the momentum, as was usual at
  the paper's time: `v = momentum * v + g + weight_decay * p; p -= learning_rate * v`.

  Raises:
    UserError: `decay` names no rule.
  """
  if config.decay not in DECAY:
    raise UserError(f"config.optimizer.decay={config.decay!r} is not one of {', '.join(DECAY)}")
  schedule = linear_decay(config.learning_rate, num_steps, config.warmup_steps)
  optimizer = optax.chain(
    optax.add_decayed_weights(config.weight_decay, DECAY[config.decay]),
    optax.sgd(schedule, config.momentum),
  )
  return optimizer, schedule
