"""Evaluation of a state on a whole split, every example exactly once."""

from collections.abc import Callable

import jax

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.config import settings
from shufflenet_jax.data import sources
from shufflenet_jax.data.sources import folder as folder_source
from shufflenet_jax.data.stream.evaluation import eval_batches
from shufflenet_jax.distributed import mesh
from shufflenet_jax.distributed.mesh import split_batch
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.training import prefetch, train_step


def batches(split, config):
  """This process's part of the evaluation stream of a `data.split.Split`."""
  return eval_batches(
    split,
    config.data,
    batch_size=config.eval_batch_size,
    num_classes=config.model.num_classes,
    process=(jax.process_index(), jax.process_count()),
  )


def run(eval_fn, state, split, config, mesh, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
  """Figures over a whole split: `top1` and `top5` (fractions), `loss` (mean), `examples`, `bad_pictures` (left out).

  Args:
    eval_fn: a compiled `train_step.eval_step`.
    state: what it takes.
    split: a `data.split.Split`.
    config: the whole config.
    mesh: the devices.
    stop: asked before each batch, and while one is late; if it says yes, the evaluation is given up.

  Returns:
    The figures; None if the evaluation was given up.
  """

  def to_devices(batch):
    return split_batch({k: batch[k] for k in ("image", "label", "mask")}, mesh)

  # Left on the device until the end, so that steps follow each other without waiting.
  sums = []
  with prefetch.Feed(batches(split, config), to_devices) as ahead:
    while (batch := ahead.get(sums[-1:], stop)) is not None:
      sums.append(eval_fn(state, batch))
  if stop():
    return None
  sums = jax.device_get(sums)
  total = {k: sum(s[k].item() for s in sums) for k in sums[0]}
  examples = total["examples"]
  if not examples:
    raise UserError(f"none of the {split.num_examples} pictures of {split.name} can be decoded")
  means = {k: total[k] / examples for k in ("top1", "top5", "loss")}
  return means | {"examples": examples, "bad_pictures": split.num_examples - examples}


def describe(figures: dict[str, float]) -> str:
  """`top-1 97.5 %, top-5 99.9 %, loss 0.1234 on 355 examples`."""
  bad = f", {figures['bad_pictures']:,} could not be decoded" if figures["bad_pictures"] else ""
  return (
    f"top-1 {100 * figures['top1']:.2f} %, top-5 {100 * figures['top5']:.2f} %, loss {figures['loss']:.4f}"
    f" on {figures['examples']:,} examples{bad}"
  )


def evaluate_checkpoint(found, config, folder: str | None = None, devices=None, say=print) -> dict[str, float]:
  """Evaluates a `checkpoint.Checkpoint` with a config (its own, or one with other data), or on a folder of images."""
  settings.check(config, training=False)
  model_before, model_now = (checkpoint.to_json(c.model) for c in (found.config, config))
  settings.check_same_network(str(found.path), model_before, model_now, "its network cannot be overridden")
  model, _ = build.network_for_images(config)
  data_mesh = mesh.data_mesh(devices)
  mesh.check_batch_size("config.eval_batch_size", config.eval_batch_size, data_mesh.size)
  if folder is None:
    split = sources.open_split(config.data, config.data.eval_split, config.model.num_classes, found.class_names)
  else:
    split = folder_source.open_folder(folder, found.class_names)
  if split.note:
    say(split.note)
  variables = mesh.replicate(found.restore_variables(), data_mesh)
  state = train_step.TrainState(found.step, 0, variables["params"], variables["batch_stats"], opt_state=())
  eval_fn = train_step.compile_eval_step(data_mesh, model=model, **settings.picture_scaling(config))
  return run(eval_fn, state, split, config, data_mesh) | {"step": found.step}
