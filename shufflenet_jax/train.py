"""Trains a network; run again in the same work directory, it resumes.

    python -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \\
        [--config.optimizer.learning_rate=0.2 ...]
"""

from absl import flags
from ml_collections import config_flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError

if __name__ == "__main__":
  config_flags.DEFINE_config_file("config", None, "Config file, for instance configs/imagenet.py:scale=0.5,groups=3.")
  flags.DEFINE_string("workdir", None, "Where checkpoints, logs and curves go; local or gs://.")
  flags.DEFINE_bool("distributed", False, "Join the other hosts of the job (Cloud TPU, GKE, Slurm).")
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
    UserError: wrong input. Nothing has been written, or, where the data turn out damaged later, what was trained is
      saved.
  """
  import contextlib
  import functools
  import itertools

  import jax
  from etils import epath

  from shufflenet_jax import checkpoint, evaluate, feed, fine_tune, mesh, metrics, network, optim, settings, train_step
  from shufflenet_jax.data import datasets, pipeline

  # Everything that can be wrong is looked at before anything is written.
  workdir = epath.Path(workdir)
  if workdir.exists() and not workdir.is_dir():
    raise UserError(f"--workdir={workdir} is a file; name a directory")
  settings.check(config, training=True)
  resumed, pretrained, set_aside = checkpoint.newest_in(workdir), None, {}
  if config.init_from:
    # A run that goes on has its network from its own checkpoint: what it began with may be gone.
    goes_on = resumed and resumed.config.get("init_from") == config.init_from
    pretrained = resumed if goes_on else checkpoint.find(config.init_from, "--config.init_from")
    set_aside = fine_tune.adopt(pretrained, config)
  model, counted = network.build_for_images(config)
  optimizer, schedule = optim.sgd(config.optimizer, config.num_train_steps)
  data_mesh = mesh.data_mesh(devices)
  mesh.check_batch_size("config.batch_size", config.batch_size, data_mesh, config.accumulate_steps)
  mesh.check_batch_size("config.eval_batch_size", config.eval_batch_size, data_mesh)
  changed = {}
  if resumed:
    before, now = checkpoint.to_json(resumed.config), checkpoint.to_json(config)
    settings.check_same_network(str(resumed.path), before["model"], now["model"], "choose another --workdir")
    changed = settings.differences(before, now)
  start_step = resumed.step if resumed else 0
  process = (jax.process_index(), jax.process_count())
  say = metrics.console(process)
  classes = config.model.num_classes
  train_split = datasets.open_split(config.data, config.data.train_split, classes, every_class=True)
  if resumed and resumed.class_names != train_split.class_names:
    before, now = next((a, b) for a, b in zip(resumed.class_names, train_split.class_names) if a != b)
    raise UserError(
      f"{resumed.path} was trained on other classes ({before!r} is {now!r} in {train_split.name}); choose another"
      " --workdir"
    )
  names = train_split.class_names[: train_split.dataset_classes]
  eval_split = datasets.open_split(config.data, config.data.eval_split, classes, names, every_class=True)
  batches = pipeline.train_batches(
    train_split,
    config.data,
    batch_size=config.batch_size,
    num_classes=config.model.num_classes,
    seed=config.seed,
    start_step=start_step,
    process=process,
    say=functools.partial(print, flush=True),
  )
  last_step = min(config.num_train_steps, stop_after_step or config.num_train_steps)
  if start_step < last_step:
    batches = itertools.chain([next(batches)], batches)
    next(evaluate.batches(eval_split, config))

  state = train_step.init_state(model, optimizer, config.data.image_size, config.seed)
  if pretrained and not resumed:
    state = fine_tune.start_from(pretrained, state, train_split.class_names)
  state = mesh.replicate(state, data_mesh)
  say(_overview(counted, config, data_mesh, train_split, eval_split))
  if pretrained and not resumed:
    known = len(fine_tune.known_classes(pretrained, names))
    say(f"{known} of the {len(names)} classes are known to {pretrained.path} by name: their last layer is kept")
  if set_aside:
    say(
      f"{pretrained.path} sets the network and the scaling of pictures; the config's own are set aside:",
      *(f"  {k}: {v}" for k, v in set_aside.items()),
      sep="\n",
    )

  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"--workdir={workdir} cannot be made: {error.strerror or error}") from None
  title = f"{network.describe(config.model)} on {config.data.name}"
  evaluated = None
  with checkpoint.manager(workdir, config.keep_checkpoints) as checkpoints, contextlib.ExitStack() as stack:
    if resumed:
      state = checkpoint.restore_state(checkpoints, start_step, state)
      say(f"resuming from {resumed.path}", *(f"  changed since: {k}: {v}" for k, v in changed.items()), sep="\n")
    if start_step < last_step:
      if process[0] == 0:
        checkpoint.write_config(workdir, config)
      say("compiling the training step ...")
    eval_fn = train_step.compile_eval_step(data_mesh, model=model, **settings.picture_scaling(config))
    step_fn = train_step.compile_train_step(
      data_mesh, model=model, optimizer=optimizer, schedule=schedule, **settings.step_arguments(config)
    )

    def save(step, figures):
      checkpoint.save(checkpoints, step, state, config, train_split.class_names, figures)

    def to_devices(batch):
      return mesh.split_batch({k: v for k, v in batch.items() if k != "id"}, data_mesh)

    writer = metrics.writer(workdir, start_step, process)
    stack.callback(writer.close)
    batches = stack.enter_context(feed.Feed(batches, to_devices))
    progress = metrics.Progress(start_step, config.num_train_steps, config.batch_size, batches)
    pending = []
    for step in range(start_step + 1, last_step + 1):
      try:
        batch = batches.get(pending)
      except UserError:
        if step - 1 > start_step:
          save(step - 1, None)
        raise
      state, step_metrics = step_fn(state, batch)
      jax.block_until_ready(pending[-1:])  # two steps under way at most, so that batches do not pile up
      pending.append(step_metrics)
      at_end = step == last_step
      if step == start_step + 1:
        jax.block_until_ready(state)
        progress.restart(step)
      if step % config.log_every_steps == 0 or at_end:
        figures = metrics.mean(jax.device_get(pending))
        pending = []
        line, speed = progress.line(step, figures)
        say(line)
        writer.write_scalars(step, figures | speed)
      figures = None
      if step % config.eval_every_steps == 0 or at_end:
        try:
          evaluated = figures = evaluate.run(eval_fn, state, eval_split, config, data_mesh)
        except UserError:
          save(step, None)
          raise
        say(f"  evaluation at step {step}: {evaluate.describe(figures)}")
        writer.write_scalars(step, {f"eval_{k}": figures[k] for k in ("loss", "top1", "top5")})
        writer.flush()
        if process[0] == 0:
          metrics.draw_curves(workdir, title)
        progress.restart(step)
      if step % config.checkpoint_every_steps == 0 or figures:
        save(step, figures)
  say(f"done: step {max(start_step, last_step)} of {config.num_train_steps}", *metrics.places(workdir), sep="\n")
  return state, evaluated


def _overview(counted, config, data_mesh, train_split, eval_split) -> str:
  from shufflenet_jax import complexity

  text = complexity.overview(counted, config.data.image_size)
  text += (
    f"\n{config.data.name}: {train_split.num_examples:,} training and {eval_split.num_examples:,} evaluation examples;"
    f" batch {config.batch_size} over {data_mesh.size} x {data_mesh.devices.flat[0].device_kind}"
  )
  if unused := config.model.num_classes - train_split.dataset_classes:
    text += f"\nnote: {unused} of the network's {config.model.num_classes} classes are not in the data"
  return text


def main(arguments: list[str]) -> None:
  if arguments:
    raise UserError(f"unexpected argument {arguments[0]!r}; flags begin with --")
  if flags.FLAGS.distributed:
    from shufflenet_jax import mesh

    mesh.join_hosts()
  train(flags.FLAGS.config, flags.FLAGS.workdir)


if __name__ == "__main__":
  cli.run(main)
