"""What a task has to provide: everything that training, evaluation and checkpoints do not know themselves."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from shufflenet_jax.counting.detector import DetectorCount
from shufflenet_jax.counting.multiply_adds import NetworkCount, count_network
from shufflenet_jax.models import build as networks
from shufflenet_jax.tasks.forward import Forward


def stage_sides(image_size: int) -> list[int]:
  """The sides of a network's maps before Stage 2 and after Stages 2, 3 and 4 (Table 1), which have strides 4 to 32."""
  return [-(-image_size // 2**i) for i in (2, 3, 4, 5)]


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
  """What is learned from a batch. A subclass defines `loss`, and `sums` or `rows`; the rest has defaults.

  A batch is a dict of arrays with `image`, uint8 (n, h, w, 3), and the `targets`.

  Attributes:
    forward: the network, which takes uint8 images.
    updates_statistics: whether `loss` updates the running statistics of batch norm. If not, it returns {} for them.
    examples: what the data have to give besides the picture: "labels", its class; or "objects", boxes in it. One of
      `data.stream.examples.KINDS`.
    targets: what a batch holds besides the images: its key -> shape (without the batch axis) and dtype.
    train_metrics: names of the scalars that the method `loss` reports, one of which is the loss itself, named "loss".
      In `metrics.jsonl` they are `train_<name>`.
    best: name of the figure by which evaluated checkpoints are compared; the best one is kept.
    larger_is_better: whether a larger value of that figure is the better one.
    panels: of `curves.png`: label of the axis -> label of the line -> name in `metrics.jsonl`.
    head: names of the network's submodules whose parameters belong to the task. Fine-tuning a checkpoint of another
      task starts them anew.
    own_model_fields: fields of the config's `model` section that belong to the task. Fine-tuning keeps them, and
      takes the other fields from the checkpoint that it starts from.
    network_fields: dotted names of the config's fields, outside of `model`, on which the meaning of the parameters
      depends. They cannot change when a checkpoint is evaluated or training is resumed.
    largest_batch: how many pictures `predict` computes at once, at most.
    table_heading: of what `predict` prints, to the right of the file's name.
  """

  forward: Forward
  updates_statistics: bool = True

  examples: ClassVar[str] = "labels"
  targets: ClassVar[dict[str, jax.ShapeDtypeStruct]] = {}
  train_metrics: ClassVar[tuple[str, ...]] = ("loss",)
  best: ClassVar[str] = "loss"
  larger_is_better: ClassVar[bool] = False
  panels: ClassVar[dict[str, dict[str, str]]] = {"loss": {"training": "train_loss", "evaluation": "eval_loss"}}
  head: ClassVar[tuple[str, ...]] = ("classifier",)
  own_model_fields: ClassVar[tuple[str, ...]] = ()
  network_fields: ClassVar[tuple[str, ...]] = ()
  largest_batch: ClassVar[int] = 64
  table_heading: ClassVar[str] = "output"

  @classmethod
  def network(cls, config):
    """The whole Flax module that is trained: the network of the config's `model` section, and what the task adds.

    Raises:
      UserError: a value that the network or the task does not accept.
    """
    return networks.network(config.model)

  @classmethod
  def count(cls, model, image_size: int) -> NetworkCount | DetectorCount:
    """Parameters and multiply-adds of the whole module for one square picture."""
    return count_network(model, image_size)

  @classmethod
  def positions(cls, config, mode: str) -> list[int]:
    """The number of positions, height x width, of the backbone's maps for one picture: before and after each stage.

    Args:
      config: the whole config.
      mode: "train" or "infer".
    """
    return [side * side for side in stage_sides(config.data.image_size)]

  @classmethod
  def from_config(cls, forward: Forward, config) -> "Task":
    """The task with the fields that a whole config sets."""
    return cls(forward)

  @abc.abstractmethod
  def loss(
    self, params, batch_stats, batch: dict[str, jax.Array], keys: jax.Array
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """The loss of one statistics group: the images that batch norm sees together. Differentiated by the training step.

    Args:
      params, batch_stats: as in `TrainState`.
      batch: `image` and the `targets`.
      keys: JAX keys (n,), one per image: functions of the seed, the step and the image's place in the global batch.

    Returns:
      (float32 scalar, updated batch_stats, the `train_metrics`: float32 scalars, each a mean over the group).
    """

  def sums(self, params, batch_stats, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Sums over the examples of an evaluation batch whose `mask`, bool (n,), is True.

    The evaluation adds them up over all batches and devices, and counts `examples` itself.
    """
    return {}

  def rows(self, params, batch_stats, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Arrays (n, ...) with a row for each example of an evaluation batch, for figures that are not sums."""
    return {}

  def figures(self, sums: dict[str, float], rows: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures of an evaluation.

    Args:
      sums: over its whole split, with the number of `examples`.
      rows: those of all its examples, in an order that depends on the number of processes.
    """
    return {name: value / sums["examples"] for name, value in sums.items() if name != "examples"}

  def describe(self, figures: dict[str, float]) -> str:
    """An evaluation's figures in a few words."""
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())

  def describe_training(self, metrics: dict[str, float]) -> str:
    """The `train_metrics` of an interval in a few words, for the console's line."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in self.train_metrics)

  def predict(self, variables: dict[str, Any], batch: dict[str, jax.Array]) -> Any:
    """What `answer` needs for pictures: a tree of arrays (n, ...). The caller compiles it.

    Args:
      variables: `params` and `batch_stats`.
      batch: `image`, uint8 (n, h, w, 3), and what else `data.stream.examples` knows of a picture without annotations.
    """
    return self.forward(variables, batch["image"])

  def answer(self, prediction, class_names: Sequence[str]) -> Any:
    """The answer for one image: from its row of `predict`'s arrays, on the host."""
    return prediction.tolist()

  def answer_as_json(self, answer) -> dict[str, Any]:
    """The answer's part of the JSON object that `predict --json` prints."""
    return {"output": answer}

  def answer_as_rows(self, answer) -> list[str]:
    """The answer as lines of the table under `table_heading`, at least one."""
    return [str(answer)]

  def notes_from_scratch(self) -> list[str]:
    """Lines for a run that starts without a checkpoint."""
    return []

  def adapt_params(self, params, fresh, names_before: Sequence[str], names_now: Sequence[str]):
    """Parameters to fine-tune: those of a checkpoint of this task, with freshly initialised parts where necessary.

    Args:
      params: the checkpoint's.
      fresh: freshly initialised ones of the network as it is now configured.
      names_before, names_now: class names of the checkpoint and of the data, in label order.
    """
    return params

  def describe_adaptation(
    self, where: str, names_before: Sequence[str], names_now: Sequence[str], dataset_classes: int
  ) -> str:
    """One line on what `adapt_params` does.

    Args:
      where: the checkpoint's path.
      names_before, names_now: see `adapt_params`.
      dataset_classes: how many of `names_now`, from the first, are classes of the data. The rest are numbers, which
        stand for outputs of the network that no class uses.
    """
    return f"all parameters are those of {where}"
