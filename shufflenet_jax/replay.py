"""Computes again a step whose loss or gradients were not finite, from what training dumped of it.

    python -m shufflenet_jax.replay --dump=WORKDIR/nonfinite/STEP

Says for each statistics group (the images that batch norm sees together) its loss and which parameters' gradients are
not finite, and names the examples. Runs on one device, whatever trained.
"""

import json

from absl import flags

from shufflenet_jax import cli
from shufflenet_jax.errors import UserError


def replay(folder: str):
  """Computes the dumped step, group by group.

  Yields:
    For each group (ids, loss, names of the parameters whose gradient is not finite).

  Raises:
    UserError: `folder` is no whole dump.
  """
  import functools
  import io
  import zipfile

  import jax
  import numpy as np

  from shufflenet_jax import storage
  from shufflenet_jax.checkpoints import checkpoint, integrity
  from shufflenet_jax.config import settings
  from shufflenet_jax.models import build
  from shufflenet_jax.training import train_step

  folder = storage.normalize(folder, "--dump=")
  found = checkpoint.find(folder, "--dump")
  try:
    step = json.loads(storage.read_bytes(storage.join(folder, "step.json")))
    files = [storage.join(folder, f"examples.{i}.npz") for i in range(step["processes"])]
    parts = [np.load(io.BytesIO(storage.read_bytes(file))) for file in files]
    batch = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
  except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(f"--dump={folder} is not whole ({error}); give WORKDIR/nonfinite/STEP") from None
  variables = found.restore_variables()
  config = found.config
  model, _ = build.network_for_images(config)
  if "flip" in batch:
    batch["image"] = np.where(batch["flip"][:, None, None, None], batch["image"][:, :, ::-1], batch["image"])
  compute = jax.jit(
    functools.partial(
      train_step.gradients,
      model=model,
      label_smoothing=config.optimizer.label_smoothing,
      **settings.picture_scaling(config),
    )
  )
  for group, first in enumerate(range(0, config.batch_size, found.group)):
    rows = slice(first, first + found.group)
    key = train_step.dropout_key(config.seed, found.step, group)
    grads, _, figures = compute(
      variables["params"], variables["batch_stats"], batch["image"][rows], batch["label"][rows], key
    )
    wrong = [k for k, v in integrity.arrays_by_name(grads).items() if not np.isfinite(v).all()]
    yield batch["id"][rows].tolist(), float(figures["loss"]), wrong


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "dump", "WORKDIR/nonfinite/STEP, as training named it.")


def main(values: flags.FlagValues) -> None:
  finite = True
  for i, (ids, loss, wrong) in enumerate(replay(values.dump)):
    shown = ", ".join(wrong[:6]) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
    print(f"group {i}: loss {loss:.6g}; gradients not finite: {shown or 'none'}", flush=True)
    if wrong or loss - loss:  # infinite or NaN
      finite = False
      print(f"  examples {', '.join(map(str, ids))}")
  if finite:
    print("every group is finite here: the device that trained, or the sum over groups, made the difference")


command = cli.Command(main, define_flags, required=("dump",))

if __name__ == "__main__":
  command()
