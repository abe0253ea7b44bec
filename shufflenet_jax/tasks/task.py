"""What a task has to provide: everything that training, evaluation and checkpoints do not know themselves."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax

from shufflenet_jax.tasks.forward import Forward


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
  """What is learned from a batch. A subclass defines `loss` and `sums`; the rest has defaults.

  A batch is a dict of arrays with `image`, uint8 (n, h, w, 3), and the `targets`.

  Attributes:
    forward: the network, which takes uint8 images.
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
    table_heading: of what `predict` prints, to the right of the file's name.
  """

  forward: Forward

  targets: ClassVar[dict[str, jax.ShapeDtypeStruct]] = {}
  train_metrics: ClassVar[tuple[str, ...]] = ("loss",)
  best: ClassVar[str] = "loss"
  larger_is_better: ClassVar[bool] = False
  panels: ClassVar[dict[str, dict[str, str]]] = {"loss": {"training": "train_loss", "evaluation": "eval_loss"}}
  head: ClassVar[tuple[str, ...]] = ("classifier",)
  own_model_fields: ClassVar[tuple[str, ...]] = ()
  table_heading: ClassVar[str] = "output"

  @classmethod
  def from_config(cls, forward: Forward, config) -> "Task":
    """The task with the fields that a whole config sets."""
    return cls(forward)

  @abc.abstractmethod
  def loss(
    self, params, batch_stats, batch: dict[str, jax.Array], key: jax.Array
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """The loss of one statistics group: the images that batch norm sees together. Differentiated by the training step.

    Args:
      params, batch_stats: as in `TrainState`.
      batch: `image` and the `targets`.
      key: a JAX key, for dropout.

    Returns:
      (float32 scalar, updated batch_stats, the `train_metrics`: float32 scalars, each a mean over the group).
    """

  @abc.abstractmethod
  def sums(self, params, batch_stats, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Sums over the examples of an evaluation batch whose `mask`, bool (n,), is True.

    The evaluation adds them up over all batches and devices, and counts `examples` itself.
    """

  def figures(self, sums: dict[str, float]) -> dict[str, float]:
    """The figures of an evaluation from the sums over its whole split, which include the number of `examples`."""
    return {name: value / sums["examples"] for name, value in sums.items() if name != "examples"}

  def describe(self, figures: dict[str, float]) -> str:
    """An evaluation's figures in a few words."""
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())

  def describe_training(self, metrics: dict[str, float]) -> str:
    """The `train_metrics` of an interval in a few words, for the console's line."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in self.train_metrics)

  def predict(self, variables: dict[str, Any], images: jax.Array) -> Any:
    """What `answer` needs for images, uint8 (n, h, w, 3): a tree of arrays (n, ...). The caller compiles it."""
    return self.forward(variables, images)

  def answer(self, prediction, class_names: Sequence[str]) -> Any:
    """The answer for one image: from its row of `predict`'s arrays, on the host."""
    return prediction.tolist()

  def answer_as_json(self, answer) -> dict[str, Any]:
    """The answer's part of the JSON object that `predict --json` prints."""
    return {"output": answer}

  def answer_as_rows(self, answer) -> list[str]:
    """The answer as lines of the table under `table_heading`, at least one."""
    return [str(answer)]

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
