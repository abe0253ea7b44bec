"""Repeats a training step from the dump that `nonfinite` made of it."""

import functools
import io
import json
import zipfile
from collections.abc import Iterator

import jax
import numpy as np

from shufflenet_jax import storage, tasks
from shufflenet_jax.checkpoints import checkpoint, integrity
from shufflenet_jax.errors import UserError
from shufflenet_jax.training.step import example_keys, gradients


def replay(folder: str) -> Iterator[tuple[list, float, list[str]]]:
  """Computes the gradients of the dumped step, one statistics group after the other.

  Yields:
    For each group (ids, loss, names of the parameters whose gradient is not finite).

  Raises:
    UserError: `folder` is not a complete dump.
  """
  folder = storage.normalize(folder, "--dump=")
  advice = "give WORKDIR/nonfinite/STEP, as training named it"
  if not storage.is_file(storage.join(folder, "step.json")):
    raise UserError(f"--dump={folder} is no dump of a step; {advice}")
  state_before = checkpoint.find(folder, "--dump")
  config = state_before.config
  model, _ = tasks.network_for_images(config)
  task = tasks.build(model, config)
  try:
    step = json.loads(storage.read_bytes(storage.join(folder, "step.json")))
    files = [storage.join(folder, f"examples.{i}.npz") for i in range(step["processes"])]
    parts = [np.load(io.BytesIO(storage.read_bytes(file))) for file in files]
    batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  except (EOFError, IndexError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(f"--dump={folder} is not complete ({error}); {advice}") from None
  wanted = {"id", "image", *task.targets}
  if not wanted <= batch.keys() or any(len(values) != config.batch_size for values in batch.values()):
    raise UserError(
      f"--dump={folder} is not complete: not {config.batch_size} examples, each with its"
      f" {', '.join(sorted(wanted))}; {advice}"
    )
  variables = state_before.restore_variables()
  if "flip" in batch:
    batch["image"] = np.where(batch["flip"][:, None, None, None], batch["image"][:, :, ::-1], batch["image"])
  compute = jax.jit(functools.partial(gradients, task=task))
  size = state_before.statistics_group
  for group, first in enumerate(range(0, config.batch_size, size)):
    rows = slice(first, first + size)
    keys = example_keys(config.seed, state_before.step, group, size)
    examples = {name: batch[name][rows] for name in ("image", *task.targets)}
    grads, _, metrics = compute(variables["params"], variables["batch_stats"], examples, keys)
    wrong = [k for k, v in integrity.arrays_by_name(grads).items() if not np.isfinite(v).all()]
    yield batch["id"][rows].tolist(), float(metrics["loss"]), wrong
