"""Trains a network; run again in the same work directory, it resumes.

    python -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \\
        [--config.optimizer.learning_rate=0.2 ...]
"""

import json

from absl import flags
from ml_collections import config_flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  config_flags.DEFINE_config_file("config", None, "Config file, for instance configs/imagenet.py:scale=0.5,groups=3.")
  flags.DEFINE_string("workdir", None, "Where checkpoints, logs and curves go; local or gs://.")
  flags.mark_flags_as_required(["config", "workdir"])


def train(config, workdir: str, devices=None, stop_after_step: int | None = None):
  """Trains to `config.num_train_steps`, from the newest checkpoint in `workdir` if there is one.

  Args:
    config: as `configs/imagenet.py` describes it.
    workdir: local or gs:// directory.
    devices: JAX devices, all by default.
    stop_after_step: ends early there, with a checkpoint.

  Returns:
    The final `TrainState`, and the last evaluation's figures (None if there was none).

  Raises:
    UserError: wrong input; nothing has been written then.
  """
  import jax
  from etils import epath

  from shufflenet_jax import checkpoint, evaluate, mesh, metrics, network, optim, train_step
  from shufflenet_jax.data import datasets, pipeline

  # Everything that can be wrong is looked at before anything is written.
  model = network.build(config.model)
  optimizer, schedule = optim.sgd(config.optimizer, config.num_train_steps)
  data_mesh = mesh.data_mesh(devices)
  mesh.check_batch_size("config.batch_size", config.batch_size, data_mesh, config.accumulate_steps)
  mesh.check_batch_size("config.eval_batch_size", config.eval_batch_size, data_mesh)
  _check_intervals(config)
  workdir = epath.Path(workdir)
  changed = _changed_fields(config, workdir)
  train_split, eval_split = (
    datasets.open_split(config.data.name, config.data.data_dir, split, config.model.num_classes)
    for split in (config.data.train_split, config.data.eval_split)
  )

  state = train_step.init_state(model, optimizer, config.data.image_size, config.seed)
  state = mesh.replicate(state, data_mesh)
  _print_overview(model, config, data_mesh, train_split, eval_split)

  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"--workdir={workdir} cannot be made: {error.strerror or error}") from None
  checkpoints = checkpoint.manager(workdir, config.keep_checkpoints)
  start_step = checkpoints.latest_step() or 0
  if start_step:
    state = checkpoint.restore_state(checkpoints, start_step, state)
    print(f"resuming from {workdir / 'checkpoints' / str(start_step)}", flush=True)
    for change in changed:
      print(f"  changed since: {change}", flush=True)
  (workdir / "config.json").write_text(json.dumps(checkpoint.to_json(config), indent=2) + "\n")

  step_fn, eval_fn = train_step.compile_steps(
    data_mesh,
    model=model,
    optimizer=optimizer,
    schedule=schedule,
    mean=tuple(config.data.mean),
    std=tuple(config.data.std),
    label_smoothing=config.optimizer.label_smoothing,
    accumulate_steps=config.accumulate_steps,
  )
  process = (jax.process_index(), jax.process_count())
  batches = pipeline.train_batches(
    train_split,
    config.data,
    batch_size=config.batch_size,
    num_classes=config.model.num_classes,
    seed=config.seed,
    start_step=start_step,
    process=process,
  )
  title = f"ShuffleNet V1 {config.model.scale}x g={config.model.groups} on {config.data.name}"
  last_step = min(config.num_train_steps, stop_after_step or config.num_train_steps)
  writer = metrics.writer(workdir, start_step)
  progress = metrics.Progress(start_step, config.num_train_steps, config.batch_size)
  pending, evaluated = [], None
  if start_step < last_step:
    print("compiling the training step ...", flush=True)
  for step in range(start_step + 1, last_step + 1):
    batch = next(batches)
    state, step_metrics = step_fn(state, mesh.split_batch({k: batch[k] for k in ("image", "label")}, data_mesh))
    pending.append(step_metrics)
    at_end = step == last_step
    if step == start_step + 1:
      jax.block_until_ready(state)
      progress.restart(step)
    if step % config.log_every_steps == 0 or at_end:
      figures = _mean(jax.device_get(pending))
      pending = []
      line, images_per_second = progress.line(step, figures)
      print(line, flush=True)
      writer.write_scalars(step, figures | {"images_per_second": images_per_second})
    evaluated_now = None
    if step % config.eval_every_steps == 0 or at_end:
      evaluated = evaluated_now = evaluate.run(eval_fn, state, eval_split, config, data_mesh)
      print(f"  evaluation at step {step}: {evaluate.describe(evaluated)}", flush=True)
      writer.write_scalars(step, {f"eval_{k}": evaluated[k] for k in ("loss", "top1", "top5")})
      writer.flush()
      metrics.draw_curves(workdir, title)
    if step % config.checkpoint_every_steps == 0 or evaluated_now or at_end:
      checkpoint.save(checkpoints, step, state, config, train_split.class_names, evaluated_now)
    if evaluated_now:
      progress.restart(step)
  checkpoints.close()  # waits for the last save
  writer.close()
  print(f"done: step {max(start_step, last_step)} of {config.num_train_steps}", flush=True)
  for what, path in (
    ("checkpoints", workdir / "checkpoints"),
    ("curves", workdir / "curves.png"),
    ("metrics", workdir / metrics.FILE),
    ("TensorBoard", f"tensorboard --logdir={workdir}"),
  ):
    print(f"  {what:12} {path}")
  return state, evaluated


def _mean(steps: list[dict[str, float]]) -> dict[str, float]:
  """Means over an interval, named as they are logged; the learning rate is the last step's."""
  mean = {f"train_{k}": sum(float(s[k]) for s in steps) / len(steps) for k in ("loss", "accuracy")}
  return mean | {"learning_rate": float(steps[-1]["learning_rate"])}


def _check_intervals(config):
  names = ("num_train_steps", "log_every_steps", "eval_every_steps", "checkpoint_every_steps", "keep_checkpoints")
  for name in names:
    if config[name] < 1:
      raise UserError(f"config.{name}={config[name]} must be 1 or more")


def _changed_fields(config, workdir) -> list[str]:
  """`field: before -> now` of what differs from the run in the work directory; another network is an error."""
  from shufflenet_jax import checkpoint

  saved = workdir / "config.json"
  if not (saved.exists() and (workdir / "checkpoints").exists()):
    return []
  before, now = _flat(json.loads(saved.read_text())), _flat(checkpoint.to_json(config))
  changed = [f"{k}: {before.get(k)} -> {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k)]
  if network := [change for change in changed if change.startswith("model.") and "dtype" not in change]:
    raise UserError(
      f"--workdir={workdir} holds checkpoints of another network ({', '.join(network)}); choose another --workdir"
    )
  return changed


def _flat(values: dict, prefix: str = "") -> dict:
  flat = {}
  for key, value in values.items():
    flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
  return flat


def _print_overview(model, config, data_mesh, train_split, eval_split):
  from shufflenet_jax import complexity

  rows, parameters, multiply_adds = complexity.model_overview(model, config.data.image_size)
  print(f"{'module':16}{'parameters':>12}{'multiply-adds':>16}")
  for name, (p, m) in rows.items():
    print(f"{name:16}{p:12,}{m:16,}")
  print(f"{'total':16}{parameters:12,}{multiply_adds:16,}  for one image, side {config.data.image_size}")
  devices = data_mesh.devices.flat
  print(
    f"{config.data.name}: {train_split.num_examples:,} training and {eval_split.num_examples:,} evaluation examples;"
    f" batch {config.batch_size} over {data_mesh.size} x {devices[0].device_kind}",
    flush=True,
  )


def main(arguments: list[str]) -> None:
  if arguments:
    raise UserError(f"unexpected argument {arguments[0]!r}; flags begin with --")
  train(flags.FLAGS.config, flags.FLAGS.workdir)


if __name__ == "__main__":
  cli.run(main)
