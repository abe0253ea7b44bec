"""Repeats a training step whose loss or gradients were not finite, from the dump that training wrote.

    python -m shufflenet_jax.replay --dump=WORKDIR/nonfinite/STEP

For each statistics group (the images that batch norm sees together) it prints the loss, the parameters whose gradients
are not finite, and the examples. It runs on one device, whatever devices the training used.
"""

import json

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError


def replay(folder: str):
  """Computes the gradients of the dumped step, one statistics group after the other.

  Yields:
    For each group (ids, loss, names of the parameters whose gradient is not finite).

  Raises:
    UserError: `folder` is not a complete dump.
  """
  import functools
  import io
  import zipfile

  import jax
  import numpy as np

  from shufflenet_jax import storage, tasks
  from shufflenet_jax.checkpoints import checkpoint, integrity
  from shufflenet_jax.models import build
  from shufflenet_jax.training.step import dropout_key, gradients

  folder = storage.normalize(folder, "--dump=")
  state_before = checkpoint.find(folder, "--dump")
  try:
    step = json.loads(storage.read_bytes(storage.join(folder, "step.json")))
    files = [storage.join(folder, f"examples.{i}.npz") for i in range(step["processes"])]
    parts = [np.load(io.BytesIO(storage.read_bytes(file))) for file in files]
    batch = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
  except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(f"--dump={folder} is not complete ({error}); give WORKDIR/nonfinite/STEP") from None
  variables = state_before.restore_variables()
  config = state_before.config
  model, _ = build.network_for_images(config)
  task = tasks.build(model, config)
  if "flip" in batch:
    batch["image"] = np.where(batch["flip"][:, None, None, None], batch["image"][:, :, ::-1], batch["image"])
  compute = jax.jit(functools.partial(gradients, task=task))
  size = state_before.statistics_group
  for group, first in enumerate(range(0, config.batch_size, size)):
    rows = slice(first, first + size)
    key = dropout_key(config.seed, state_before.step, group)
    examples = {name: batch[name][rows] for name in ("image", *task.targets)}
    grads, _, metrics = compute(variables["params"], variables["batch_stats"], examples, key)
    wrong = [k for k, v in integrity.arrays_by_name(grads).items() if not np.isfinite(v).all()]
    yield batch["id"][rows].tolist(), float(metrics["loss"]), wrong


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "dump", "WORKDIR/nonfinite/STEP, as named in the message of the training.")


def main(values: flags.FlagValues) -> None:
  finite = True
  for i, (ids, loss, wrong) in enumerate(replay(values.dump)):
    shown = ", ".join(wrong[:6]) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
    print(f"statistics group {i}: loss {loss:.6g}; gradients not finite: {shown or 'none'}", flush=True)
    if wrong or loss - loss:  # infinite or NaN
      finite = False
      print(f"  examples {', '.join(map(str, ids))}")
  if finite:
    print("all groups are finite here, so the cause is the device used in training, or the mean over the groups")


command = cli.Command(main, define_flags, required=("dump",))

if __name__ == "__main__":
  command()
