"""What `predict` answers for a picture, the same for a checkpoint and for a deployed file.

This module needs only NumPy, because deployed files are also run where JAX is not installed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np


@dataclasses.dataclass(frozen=True)
class TopClasses:
  """The answer of classification: the most probable classes, best first: [(name, probability), ...].

  Attributes:
    top: how many classes an answer has, at most as many as there are.
    table_heading: of the printed table, to the right of the file's name.
  """

  top: int = 5

  table_heading: ClassVar = "probability  class"

  def answer(self, probabilities: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, float]]:
    """The answer for one picture from the probabilities of all classes, float32 (classes,)."""
    return [(class_names[i], float(probabilities[i])) for i in np.argsort(-probabilities)[: self.top]]

  def answer_as_json(self, answer: list[tuple[str, float]]) -> dict[str, Any]:
    """The answer's part of the JSON object that `predict --json` prints."""
    return {"classes": [{"name": name, "probability": probability} for name, probability in answer]}

  def answer_as_rows(self, answer: list[tuple[str, float]]) -> list[str]:
    """The answer as lines of the table under `table_heading`."""
    return [f"{100 * probability:9.1f} %  {name}" for name, probability in answer]
