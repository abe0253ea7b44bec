"""Applies a checkpoint's network to pictures."""

import operator

import jax
import numpy as np

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints.checkpoint import Checkpoint
from shufflenet_jax.config import settings
from shufflenet_jax.data import pictures
from shufflenet_jax.data.stream import examples

# A run uses one of these batch sizes, so that it compiles once: the smallest that holds all its pictures, or the
# largest if none does. On a CPU larger batches are no faster, but take more memory, and the first answer comes later.
CPU_BATCH_SIZES = (1, 8)
ACCELERATOR_BATCH_SIZES = (1, 8, 64)


class Predictor:
  """Applies a checkpoint's network to pictures; for classification, this gives their most probable classes.

  Attributes:
    task: the `tasks.Task`.
    batch_sizes: the ones that are worthwhile on this machine's devices, ascending.
  """

  def __init__(self, checkpoint: Checkpoint):
    """Raises a UserError if a field of the checkpoint's config is out of range."""
    config = checkpoint.config
    settings.check(config, training=False)
    self.task = tasks.build(tasks.network(config), config)
    sizes = CPU_BATCH_SIZES if jax.default_backend() == "cpu" else ACCELERATOR_BATCH_SIZES
    self.batch_sizes = tuple(size for size in sizes if size <= self.task.largest_batch)
    self._data, self._class_names = config.data, checkpoint.class_names
    self._examples = examples.KINDS[self.task.examples]
    variables = checkpoint.restore_variables()
    self._predict = jax.jit(lambda batch: self.task.predict(variables, batch))

  def decode(self, encoded: bytes) -> dict[str, np.ndarray]:
    """An image's encoded bytes -> `image`, uint8 (h, w, 3), as evaluation makes it, and what the task needs besides it.

    May be called by several threads.

    Raises:
      PictureError: they cannot be decoded.
    """
    example = self._examples.of_picture(pictures.decode_file(encoded), self._data)
    return {name: np.asarray(value) for name, value in example.items()}

  def answers(self, decoded: list[dict[str, np.ndarray]], batch_size: int) -> list:
    """The task's answer for each of at most `batch_size` decoded pictures; see `Task.answer`."""
    padded = decoded + decoded[:1] * (batch_size - len(decoded))
    batch = {name: np.stack([example[name] for example in padded]) for name in decoded[0]}
    predictions = jax.device_get(self._predict(batch))
    rows = (jax.tree.map(operator.itemgetter(i), predictions) for i in range(len(decoded)))
    return [self.task.answer(row, self._class_names) for row in rows]

  def __call__(self, encoded: bytes):
    """The answer for one encoded image."""
    return self.answers([self.decode(encoded)], batch_size=1)[0]
