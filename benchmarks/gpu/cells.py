"""What is compared, and in which order, so that a run which is cut short has measured what matters most."""

import dataclasses
import itertools
from typing import NamedTuple

from shufflenet_jax.models.formulations.choose import FORMULATIONS

# PyTorch's network compiled by torch.compile, to which all others are compared, and as PyTorch runs it by itself.
COMPILED, EAGER = "torch compiled", "torch eager"
TORCH = (COMPILED, EAGER)
OURS = "dense"  # the formulation that "auto" chooses on GPUs
FIRST = (OURS, *TORCH)  # what the first cell compares before it compares all, so that there is a figure early
ALL = (OURS, *(name for name in FORMULATIONS if name != OURS), *TORCH)


class Sizes(NamedTuple):
  """What all cells share.

  Attributes:
    image_size: pixels a side.
    repeats: units of Stages 2, 3 and 4.
    num_classes: of the classifier.
    scales, batches: the two widths and the two batch sizes, the more important one first.
    rounds: how often each function has its turn.
    turn_seconds: of each turn's timed part.
    patience_seconds: how much longer than the first of our formulations another may compile.
  """

  image_size: int = 224
  repeats: tuple[int, ...] = (4, 8, 4)
  num_classes: int = 1000
  scales: tuple[float, float] = (1.0, 0.5)
  batches: tuple[int, int] = (256, 1024)
  rounds: int = 7
  turn_seconds: float = 0.3
  patience_seconds: float = 75


_SMALL = {"image_size": 32, "repeats": (1, 1, 1), "num_classes": 10, "scales": (0.25, 0.125), "batches": (4, 8)}
REHEARSAL = Sizes(**_SMALL, rounds=2, turn_seconds=0.02, patience_seconds=600)  # on a CPU


@dataclasses.dataclass(frozen=True)
class Cell:
  """A network, a batch and what is done with it.

  Attributes:
    scale, groups: of the network.
    batch: images of a step.
    dtype: "bfloat16" or "float32".
    mode: "train" or "infer".
  """

  scale: float
  groups: int
  batch: int
  dtype: str
  mode: str

  def __str__(self) -> str:
    return f"{self.scale:g}x g={self.groups}, batch {self.batch}, {self.dtype}, {self.mode}"


def in_order(sizes: Sizes) -> list[Cell]:
  """All cells, the most important ones first: those that differ least from training 1x g=3 in bfloat16."""
  # Each list has the usual value first. The number is what the other one costs in importance.
  axes = {
    "mode": (("train", "infer"), 1.0),
    "batch": (sizes.batches, 1.5),
    "groups": ((3, 8), 2.0),
    "scale": (sizes.scales, 2.2),
    "dtype": (("bfloat16", "float32"), 2.4),
  }

  def distance(indices: tuple[int, ...]) -> float:
    return sum(index * cost for index, (_, cost) in zip(indices, axes.values()))

  choices = sorted(itertools.product((0, 1), repeat=len(axes)), key=distance)
  return [Cell(**{name: axes[name][0][i] for name, i in zip(axes, indices)}) for indices in choices]


class Part(NamedTuple):
  """A cell, and the functions that take turns in it."""

  cell: Cell
  names: tuple[str, ...]


def parts(cells: list[Cell], torch: bool) -> list[Part]:
  """What is measured, one after the other. The first cell has two parts; without PyTorch none has its functions."""
  given = [Part(cell, ALL) for cell in cells]
  if given:
    given.insert(0, Part(cells[0], FIRST))
  return [Part(cell, tuple(name for name in names if torch or name not in TORCH)) for cell, names in given]
