"""The training and evaluation steps: pure, module-level, jitted by the caller over a mesh with one axis, `data`."""

import collections
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from shufflenet_jax.distributed.mesh import AXIS


@flax.struct.dataclass
class TrainState:
  """What training carries on. All arrays are the same on every device.

  Attributes:
    step: int32 scalar, steps done.
    skipped: int32 scalar, how many of them changed nothing because the loss or a gradient was not finite.
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
  """A fresh state; the same for a seed on any hardware."""
  image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
  variables = jax.jit(model.init)(jax.random.key(seed), image)
  params = variables["params"]
  step, skipped = (jnp.zeros((), jnp.int32) for _ in range(2))  # two buffers: both are donated
  return TrainState(step, skipped, params, variables.get("batch_stats", {}), optimizer.init(params))


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
  """uint8 (n, h, w, 3) -> float32 of about zero mean and unit variance; mean and std on the 0-255 scale."""
  shape = (1, 1, 1, -1)  # (c,) -> (1, 1, 1, c)
  return (images.astype(jnp.float32) - jnp.asarray(mean).reshape(shape)) / jnp.asarray(std).reshape(shape)


def mirror(images: jax.Array, flip: jax.Array) -> jax.Array:
  """Images (n, h, w, c) left to right, where `flip`, bool (n,)."""
  return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)  # (n,) -> (n, 1, 1, 1)


def gradients(
  params,
  batch_stats,
  images: jax.Array,
  labels: jax.Array,
  dropout_key: jax.Array,
  *,
  model,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  label_smoothing: float,
):
  """Gradients of the loss on one statistics group: the images that batch norm sees together.

  Args:
    params, batch_stats: as in `TrainState`.
    images: uint8 (n, h, w, 3).
    labels: int32 (n,).
    dropout_key: a JAX key.
    model, mean, std, label_smoothing: see `train_step`.

  Returns:
    (gradients as `params`, updated batch_stats, {"loss", "accuracy"}: float32 scalars over the group).
  """

  def loss_fn(params):
    logits, updated = model.apply(
      {"params": params, "batch_stats": batch_stats},
      normalize(images, mean, std),
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": dropout_key},
    )
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    accuracy = (logits.argmax(-1) == labels).mean(dtype=jnp.float32)
    return loss, (updated.get("batch_stats", {}), {"loss": loss, "accuracy": accuracy})

  grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)
  return grads, batch_stats, metrics


def dropout_key(seed: int, step, group) -> jax.Array:
  """The key of a statistics group, numbered over the global batch: the same however groups lie on devices."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), group)


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  model,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  label_smoothing: float = 0.0,
  accumulate_steps: int = 1,
  seed: int = 0,
  max_skipped_steps: int = 0,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One SGD step, on one device's part of the batch; runs inside `jax.shard_map`.

  Batch norm sees one device's images (one micro-batch of them, with
  accumulation), as on the paper's four GPUs. Gradients, running statistics
  and metrics are averaged over all micro-batches of all devices together, in
  one all-reduce: the groups that batch norm sees may lie side by side on
  devices or follow one another on one, the step is the same.

  A step whose loss or gradients are not finite changes nothing but the counts.
  Once there were more of them than `max_skipped_steps`, no step changes
  anything, so that the state stays the one ahead of the step that was too much.

  Args:
    state: replicated.
    batch: `image` uint8 (n, h, w, 3), `label` int32 (n,): this device's examples; perhaps `flip` bool (n,), which of
      them to mirror: here it costs next to nothing, on the host a tenth of the time that a picture takes.
    model: a Flax module with a `batch_stats` collection.
    optimizer, schedule: see `optim.sgd`.
    mean, std: see `normalize`.
    label_smoothing: share of the target spread evenly over the classes.
    accumulate_steps: micro-batches; must divide n.
    seed: of dropout, which differs between steps and micro-batches.
    max_skipped_steps: in the whole run.

  Returns:
    The next state, and scalars over the global batch: float32 loss (without weight decay), accuracy, learning_rate;
    bool finite; int32 skipped, as in the state.
  """
  key_of_group = functools.partial(dropout_key, seed, state.step)
  first_group = jax.lax.axis_index(AXIS) * accumulate_steps
  of_group = functools.partial(gradients, model=model, mean=mean, std=std, label_smoothing=label_smoothing)

  def varying(tree):
    # Marked as differing between devices, so that differentiation itself adds no all-reduce.
    return jax.tree.map(lambda x: jax.lax.pcast(x, AXIS, to="varying"), tree)

  params, batch_stats = varying((state.params, state.batch_stats))

  def micro_step(total, micro_batch):
    images, labels, index = micro_batch
    sums = of_group(params, batch_stats, images, labels, key_of_group(first_group + index))
    return jax.tree.map(jnp.add, total, sums), None

  images = mirror(batch["image"], batch["flip"]) if "flip" in batch else batch["image"]
  if accumulate_steps == 1:
    total = of_group(params, batch_stats, images, batch["label"], key_of_group(first_group))
  else:
    # (n, ...) -> (accumulate_steps, n / accumulate_steps, ...)
    micro = jax.tree.map(lambda x: x.reshape(accumulate_steps, -1, *x.shape[1:]), (images, batch["label"]))
    metrics = varying({"loss": jnp.zeros(()), "accuracy": jnp.zeros(())})
    zeros = (*jax.tree.map(jnp.zeros_like, (params, batch_stats)), metrics)
    total, _ = jax.lax.scan(micro_step, zeros, (*micro, jnp.arange(accumulate_steps)))
    total = jax.tree.map(lambda x: x / accumulate_steps, total)

  grads, batch_stats, metrics = jax.lax.pmean(total, AXIS)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  stepped = (optax.apply_updates(state.params, updates), batch_stats, opt_state)

  finite = all_finite((metrics["loss"], grads))
  skipped = state.skipped + ~finite
  within_limit = skipped <= max_skipped_steps
  before = (state.params, state.batch_stats, state.opt_state)
  after = jax.tree.map(functools.partial(jnp.where, finite & within_limit), stepped, before)
  params, batch_stats, opt_state = after
  # The schedule's count: a skipped step is one of its steps, too.
  opt_state = optax.tree_utils.tree_set(opt_state, count=state.step + within_limit)
  metrics |= {"learning_rate": schedule(state.step), "finite": finite, "skipped": skipped}
  return TrainState(state.step + within_limit, skipped, params, batch_stats, opt_state), metrics


def all_finite(tree) -> jax.Array:
  """bool scalar: whether every value of every array is."""
  of_shape = collections.defaultdict(list)
  for x in jax.tree.leaves(tree):
    of_shape[x.shape].append(jnp.isfinite(x))
  # Arrays of a shape are reduced as one: to begin a reduction takes a TPU as long as 400 kB of it (an estimate).
  return jnp.all(jnp.stack([functools.reduce(jnp.logical_and, alike).all() for alike in of_shape.values()]))


def eval_step(
  state: TrainState, batch: dict[str, jax.Array], *, model, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, jax.Array]:
  """Sums over the examples whose `mask` is True; runs inside `jax.shard_map`.

  Returns:
    examples, top1, top5: int32 counts; loss: float32 sum of cross-entropies. Over all devices.
  """
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  logits = model.apply(variables, normalize(batch["image"], mean, std))
  labels, mask = batch["label"], batch["mask"]
  # Rank of the label among the logits, 0 the best; NaN logits rank as wrong.
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  rank = logits.shape[-1] - 1 - (logits < own).sum(-1)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  sums = {
    "examples": mask.sum(dtype=jnp.int32),
    "top1": (mask & (rank < 1)).sum(dtype=jnp.int32),
    "top5": (mask & (rank < 5)).sum(dtype=jnp.int32),
    "loss": jnp.where(mask, losses, 0.0).sum(),
  }
  return jax.lax.psum(sums, AXIS)


def compile_train_step(mesh: jax.sharding.Mesh, **fixed):
  """`train_step` jitted for a mesh, its keyword arguments fixed: state replicated and donated, batch split."""
  replicated, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
  step = functools.partial(train_step, **fixed)
  step = jax.shard_map(step, mesh=mesh, in_specs=(replicated, split), out_specs=(replicated, replicated))
  return jax.jit(step, donate_argnums=0)


def compile_eval_step(mesh: jax.sharding.Mesh, **fixed):
  """`eval_step` jitted for a mesh, its keyword arguments fixed: state replicated, batch split."""
  replicated, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
  step = functools.partial(eval_step, **fixed)
  return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(replicated, split), out_specs=replicated))
