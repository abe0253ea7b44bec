"""The training and evaluation steps: pure functions, compiled over a mesh that has one axis, `data`."""

import collections
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from shufflenet_jax.distributed.mesh import AXIS
from shufflenet_jax.tasks.task import Task


@flax.struct.dataclass
class TrainState:
  """What one training step passes to the next. All arrays are the same on every device.

  Attributes:
    step: int32 scalar, the number of steps done.
    skipped: int32 scalar, how many steps changed nothing because the loss or a gradient was not finite.
    params: float32.
    batch_stats: float32 running mean and variance of each batch norm; {} for a network without any.
    opt_state: Optax's.
  """

  step: jax.Array
  skipped: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any


def init_state(model, optimizer: optax.GradientTransformation, image_size: int, seed: int) -> TrainState:
  """A fresh state, which depends on the seed but not on the hardware."""
  image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
  variables = jax.jit(model.init)(jax.random.key(seed), image)
  params = variables["params"]
  step, skipped = (jnp.zeros((), jnp.int32) for _ in range(2))  # two buffers, because both are donated
  return TrainState(step, skipped, params, variables.get("batch_stats", {}), optimizer.init(params))


def mirror(images: jax.Array, flip: jax.Array) -> jax.Array:
  """Mirrors images (n, h, w, c) left to right where `flip`, bool (n,), is True."""
  return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)  # (n,) -> (n, 1, 1, 1)


def gradients(params, batch_stats, batch: dict[str, jax.Array], keys: jax.Array, *, task: Task):
  """Gradients of the task's loss on one statistics group: the images that batch norm sees together.

  Args:
    params, batch_stats: as in `TrainState`.
    batch: `image`, uint8 (n, h, w, 3), and the task's targets.
    keys: JAX keys (n,), see `Task.loss`.
    task: defines the loss.

  Returns:
    (gradients as `params`, updated batch_stats, the task's metrics: float32 scalars over the group).
  """

  def loss_of(params):
    loss, updated, metrics = task.loss(params, batch_stats, batch, keys)
    return loss, (updated, metrics)

  grads, (batch_stats, metrics) = jax.grad(loss_of, has_aux=True)(params)
  return grads, batch_stats, metrics


def example_keys(seed: int, step, group, size: int) -> jax.Array:
  """Keys (size,) of the examples of a statistics group: functions of seed, step and place in the global batch.

  Groups of `size` examples are numbered within the global batch, so devices do not matter.
  """
  of_step = jax.random.fold_in(jax.random.key(seed), step)
  return jax.vmap(jax.random.fold_in, (None, 0))(of_step, group * size + jnp.arange(size))


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  task: Task,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  accumulate_steps: int = 1,
  seed: int = 0,
  max_skipped_steps: int = 0,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One SGD step, on one device's part of the batch; runs inside `jax.shard_map`.

  Batch norm sees one device's images (one micro-batch of them, with
  accumulation), as on the paper's four GPUs. Gradients, running statistics
  and metrics are averaged over all micro-batches of all devices in one
  all-reduce. So the step is the same whether statistics groups are computed
  side by side on several devices or one after the other on one.

  A step whose loss or gradients are not finite changes nothing but the counts.
  Beyond `max_skipped_steps` such steps, every step is a no-op, which preserves
  the state before the offending step.

  Args:
    state: replicated.
    batch: this device's examples: `image`, uint8 (n, h, w, 3), and the task's targets. If there is `flip`, bool (n,),
      it marks the images to mirror: that is free here, and would take a tenth of the decoding time on the host.
    task: what is learned.
    optimizer, schedule: see `optimizer.sgd`.
    accumulate_steps: number of micro-batches; must divide n.
    seed: of dropout and sampling, see `example_keys`.
    max_skipped_steps: the limit for the whole run.

  Returns:
    The next state, and scalars over the global batch: the task's metrics and learning_rate, float32; finite, bool;
    skipped, int32, as in the state.
  """
  total = _mean_over_micro_batches(state, batch, task, accumulate_steps, seed)
  grads, batch_stats, metrics = jax.lax.pmean(total, AXIS)
  if not task.updates_statistics:
    batch_stats = state.batch_stats
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  stepped = (optax.apply_updates(state.params, updates), batch_stats, opt_state)

  finite = all_finite((metrics["loss"], grads))
  skipped = state.skipped + jnp.int32(~finite)
  within_limit = skipped <= max_skipped_steps
  before = (state.params, state.batch_stats, state.opt_state)
  after = jax.tree.map(functools.partial(jnp.where, finite & within_limit), stepped, before)
  params, batch_stats, opt_state = after
  step = state.step + jnp.int32(within_limit)
  # The learning rate depends on this count, and a skipped step counts as a step of the schedule.
  opt_state = optax.tree_utils.tree_set(opt_state, count=step)
  metrics |= {"learning_rate": schedule(state.step), "finite": finite, "skipped": skipped}
  return TrainState(step, skipped, params, batch_stats, opt_state), metrics


def _mean_over_micro_batches(state: TrainState, batch: dict[str, jax.Array], task: Task, accumulate_steps: int, seed):
  """`gradients` of each of the `accumulate_steps` statistics groups of this device's images, averaged."""
  size = len(batch["image"]) // accumulate_steps
  first_group = jax.lax.axis_index(AXIS) * accumulate_steps
  of_group = functools.partial(gradients, task=task)
  params, batch_stats = _varying((state.params, state.batch_stats))
  examples = {name: values for name, values in batch.items() if name != "flip"}
  if "flip" in batch:
    examples["image"] = mirror(batch["image"], batch["flip"])
  if accumulate_steps == 1:
    return of_group(params, batch_stats, examples, example_keys(seed, state.step, first_group, size))

  def micro_step(total, micro_batch):
    examples, index = micro_batch
    keys = example_keys(seed, state.step, first_group + index, size)
    sums = of_group(params, batch_stats, examples, keys)
    return jax.tree.map(jnp.add, total, sums), None

  # (n, ...) -> (accumulate_steps, n / accumulate_steps, ...)
  micro = jax.tree.map(lambda x: x.reshape(accumulate_steps, -1, *x.shape[1:]), examples)
  metrics = _varying({name: jnp.zeros(()) for name in task.train_metrics})
  statistics = batch_stats if task.updates_statistics else {}
  zeros = (*jax.tree.map(jnp.zeros_like, (params, statistics)), metrics)
  total, _ = jax.lax.scan(micro_step, zeros, (micro, jnp.arange(accumulate_steps)))
  return jax.tree.map(lambda x: x / accumulate_steps, total)


def _varying(tree):
  """Marks arrays as differing between devices, so that differentiation itself adds no all-reduce."""
  return jax.tree.map(lambda x: jax.lax.pcast(x, AXIS, to="varying"), tree)


def all_finite(tree) -> jax.Array:
  """bool scalar: whether every value of every array is finite."""
  of_shape = collections.defaultdict(list)
  for x in jax.tree.leaves(tree):
    of_shape[x.shape].append(jnp.isfinite(x))
  # Arrays of one shape are reduced together: starting a reduction takes a TPU as long as reading 400 kB (an estimate).
  return jnp.all(jnp.stack([functools.reduce(jnp.logical_and, alike).all() for alike in of_shape.values()]))


def eval_step(
  state: TrainState, batch: dict[str, jax.Array], *, task: Task
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """Sums over the examples whose `mask` is True, and a row for each; runs inside `jax.shard_map`.

  Args:
    state: replicated.
    batch: this device's `image` and `mask`, bool (n,), and the task's targets.
    task: what is learned.

  Returns:
    The task's sums and `examples`, int32, over all devices; and the task's rows of this device's examples, with `mask`.
  """
  sums = task.sums(state.params, state.batch_stats, batch)
  rows = task.rows(state.params, state.batch_stats, batch)
  counts = sums | {"examples": batch["mask"].sum(dtype=jnp.int32)}
  return jax.lax.psum(counts, AXIS), rows | {"mask": batch["mask"]}


def compile_train_step(mesh: jax.sharding.Mesh, **fixed):
  """`train_step` jitted for a mesh, with keyword arguments fixed; state replicated and donated, batch split."""
  replicated, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
  step = functools.partial(train_step, **fixed)
  step = jax.shard_map(step, mesh=mesh, in_specs=(replicated, split), out_specs=(replicated, replicated))
  return jax.jit(step, donate_argnums=0)


def compile_eval_step(mesh: jax.sharding.Mesh, *, task: Task):
  """`eval_step` jitted for a mesh and a task: state and sums replicated, batch and rows split."""
  replicated, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
  step = functools.partial(eval_step, task=task)
  return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(replicated, split), out_specs=(replicated, split)))
