"""Image classification: one label per image, cross-entropy (section 4 of the paper), top-1 and top-5."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from shufflenet_jax.answers import TopClasses
from shufflenet_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Classification(TopClasses, Task):
  """The outputs are logits (n, num_classes); `label` int32 (n,) is the target. See `Task` for the methods,
  and `TopClasses` for the answers of `predict`.

  Attributes:
    label_smoothing: share of the target that is spread evenly over the classes.
  """

  label_smoothing: float = 0.0

  targets: ClassVar = {"label": jax.ShapeDtypeStruct((), jnp.int32)}
  train_metrics: ClassVar = ("loss", "accuracy")
  best: ClassVar = "top1"
  larger_is_better: ClassVar = True
  panels: ClassVar = {
    "loss": {"train, as optimised": "train_loss", "test, cross-entropy": "eval_loss"},
    "top-1 accuracy": {"train, augmented": "train_accuracy", "test": "eval_top1"},
  }
  own_model_fields: ClassVar = ("num_classes",)

  @classmethod
  def from_config(cls, forward, config) -> "Classification":
    return cls(forward, label_smoothing=config.optimizer.label_smoothing)

  def loss(self, params, batch_stats, batch, keys):
    """Softmax cross-entropy with smoothed labels, averaged over the statistics group (see `Task.loss`).

    `accuracy` is the fraction of images whose top class is correct.
    """
    logits, batch_stats = self.forward.train(params, batch_stats, batch["image"], keys[0])
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), self.label_smoothing)
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    accuracy = (logits.argmax(-1) == batch["label"]).mean(dtype=jnp.float32)
    return loss, batch_stats, {"loss": loss, "accuracy": accuracy}

  def sums(self, params, batch_stats, batch):
    """top1, top5: int32 counts of correct answers; loss: float32 sum of cross-entropies, without smoothing."""
    logits = self.forward({"params": params, "batch_stats": batch_stats}, batch["image"])
    labels, mask = batch["label"], batch["mask"]
    # Rank of the label among the logits, 0 the best; NaN logits rank as wrong.
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    rank = logits.shape[-1] - 1 - (logits < own).sum(-1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
      "top1": (mask & (rank < 1)).sum(dtype=jnp.int32),
      "top5": (mask & (rank < 5)).sum(dtype=jnp.int32),
      "loss": jnp.where(mask, losses, 0.0).sum(),
    }

  def figures(self, sums, rows):
    """`top1` and `top5`, fractions; `loss`, the mean cross-entropy."""
    return {name: sums[name] / sums["examples"] for name in ("top1", "top5", "loss")}

  def describe(self, figures) -> str:
    """`top-1 97.50 %, top-5 99.90 %, loss 0.1234`."""
    return f"top-1 {100 * figures['top1']:.2f} %, top-5 {100 * figures['top5']:.2f} %, loss {figures['loss']:.4f}"

  def describe_training(self, metrics) -> str:
    """`loss 0.1234  accuracy 97.5 %`."""
    return f"loss {metrics['loss']:.4f}  accuracy {100 * metrics['accuracy']:.1f} %"

  def predict(self, variables, batch):
    """Probabilities, float32 (n, num_classes)."""
    return jax.nn.softmax(self.forward(variables, batch["image"]))

  def adapt_params(self, params, fresh, names_before: Sequence[str], names_now: Sequence[str]):
    """In the last layer, classes that the checkpoint knows by name keep their weights; the others get fresh ones."""
    from shufflenet_jax.tasks import known_classes  # here, because it imports more of the package than a step needs

    return known_classes.adapt_classifier(params, fresh, names_before, names_now)

  def describe_adaptation(self, where, names_before, names_now, dataset_classes) -> str:
    from shufflenet_jax.tasks import known_classes

    return known_classes.describe(where, names_before, names_now, dataset_classes)
