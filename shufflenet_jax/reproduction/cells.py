"""The networks of the paper's tables, and the claims that the tables make about them."""

import dataclasses
from collections.abc import Collection

from shufflenet_jax.errors import UserError
from shufflenet_jax.paper import top1_errors as paper

_TITLES = {
  "shufflenet": "ShuffleNet", "mobilenet": "MobileNet", "vgg_like": "VGG-like", "resnet": "ResNet",
  "xception_like": "Xception-like", "resnext": "ResNeXt",
}  # fmt: skip


def titled(text: str) -> str:
  """The text with networks named as the paper names them: `resnet_13M` becomes `ResNet_13M`."""
  for name, title in _TITLES.items():
    text = text.replace(name, title)
  return text


@dataclasses.dataclass(frozen=True)
class Cell:
  """A network of a table; one that is in several tables is the same cell in all of them.

  Attributes:
    name: of its folder and in results, for instance `shufflenet_0.25x_g3`.
    arguments: of a config, for instance `scale=0.25,groups=3`.
    scale: of the ShuffleNet that it is compared with.
  """

  name: str
  arguments: str
  scale: float

  @property
  def label(self) -> str:
    """The name for people: `ShuffleNet 0.25x g=3, no shuffle`."""
    return titled(self.name).replace("_noshuffle", ", no shuffle").replace("_g", " g=").replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Row:
  """A cell in a table, with the paper's top-1 error, percent."""

  table: int
  cell: Cell
  paper_error: float


@dataclasses.dataclass(frozen=True)
class Claim:
  """The paper's table says that one network is worse than another.

  Attributes:
    table: its number.
    what: the difference in words, for instance `without shuffle`.
    worse, better: the two networks.
    paper_points: difference of their top-1 errors in the paper, percentage points.
  """

  table: int
  what: str
  worse: Cell
  better: Cell
  paper_points: float


def shufflenet(scale: float, groups: int, shuffle: bool = True) -> Cell:
  """The cell of a ShuffleNet, with or without channel shuffle."""
  name = f"shufflenet_{scale:g}x_g{groups}"
  arguments = f"scale={scale},groups={groups}"
  return Cell(name, arguments, scale) if shuffle else Cell(f"{name}_noshuffle", f"{arguments},shuffle=none", scale)


def other_unit(unit: str, scale: float) -> Cell:
  """The cell of another unit of Table 4, at the multiply-adds of the ShuffleNet of a scale."""
  if unit == "xception_like":  # section 4.2: it is ShuffleNet with one group
    return shufflenet(scale, 1)
  mflops = paper.TABLE_4[scale][0]
  return Cell(f"{unit}_{mflops}M", f"network={unit},mflops={float(mflops)}", scale)


def mobilenet(width: float, scale: float) -> Cell:
  """The cell of a MobileNet that Table 5 compares with the ShuffleNet of a scale."""
  return Cell(f"mobilenet_{width:g}x", f"network=mobilenet_v1,scale={width}", scale)


def rows(tables: Collection[int]) -> list[Row]:
  """The cells of these tables with the paper's errors, in the tables' order."""
  found = []
  if 2 in tables:
    found += [Row(2, shufflenet(s, g), error) for s, errors in paper.TABLE_2.items() for g, error in errors.items()]
  if 3 in tables:
    for scale, pairs in paper.TABLE_3.items():
      for groups, (without, with_shuffle) in pairs.items():
        found += [
          Row(3, shufflenet(scale, groups, shuffle=False), without), Row(3, shufflenet(scale, groups), with_shuffle)
        ]  # fmt: skip
  if 4 in tables:
    for scale, (_, groups, error, others) in paper.TABLE_4.items():
      found += [Row(4, other_unit(unit, scale), other) for unit, other in others.items()]
      found.append(Row(4, shufflenet(scale, groups), error))
  if 5 in tables:
    for scale, (width, mobilenets_error, groups, error) in paper.TABLE_5.items():
      found += [Row(5, mobilenet(width, scale), mobilenets_error), Row(5, shufflenet(scale, groups), error)]
  return found


def claims(tables: Collection[int]) -> list[Claim]:
  """What these tables claim: that shuffle, more than one group, and ShuffleNet's unit each make a network better."""
  found = []
  if 2 in tables:
    for scale, errors in paper.TABLE_2.items():
      one = shufflenet(scale, 1)
      found += [
        Claim(2, f"{scale:g}x: g=1 against g={g}", one, shufflenet(scale, g), errors[1] - errors[g])
        for g in errors
        if g > 1
      ]
  if 3 in tables:
    for scale, pairs in paper.TABLE_3.items():
      for g, (without, with_shuffle) in pairs.items():
        worse, better = shufflenet(scale, g, shuffle=False), shufflenet(scale, g)
        found.append(Claim(3, f"{scale:g}x g={g}: without shuffle", worse, better, without - with_shuffle))
  if 4 in tables:
    for scale, (mflops, groups, error, others) in paper.TABLE_4.items():
      found += [
        Claim(
          4,
          f"{mflops}M: {titled(unit)} against ShuffleNet",
          other_unit(unit, scale),
          shufflenet(scale, groups),
          other - error,
        )
        for unit, other in others.items()
      ]
  if 5 in tables:
    for scale, (width, mobilenets_error, groups, error) in paper.TABLE_5.items():
      worse, better = mobilenet(width, scale), shufflenet(scale, groups)
      what = f"MobileNet {width:g} against ShuffleNet {scale:g}x g={groups}"
      found.append(Claim(5, what, worse, better, mobilenets_error - error))
  return found


def choose(tables: Collection[int], scales: Collection[float], only: Collection[str]) -> list[Cell]:
  """The distinct cells of these tables, cheapest scale first.

  Args:
    tables: their numbers.
    scales: keeps the cells of these scales; all if empty.
    only: keeps the cells whose names contain one of these words; all if empty.

  Raises:
    UserError: no such table or scale, or a word that is in no name.
  """
  if unknown := sorted(set(tables) - set(paper.TABLES)):
    have = ", ".join(map(str, paper.TABLES))
    raise UserError(f"--tables={unknown[0]} is not a table of errors on ImageNet; those are {have}")
  cells = list(dict.fromkeys(row.cell for row in rows(tables)))
  known = sorted({cell.scale for cell in cells})
  if missing := sorted(set(scales) - set(known)):
    raise UserError(f"--scales={missing[0]:g} is not in these tables; they have {', '.join(f'{s:g}' for s in known)}")
  for word in only:
    if not any(word in cell.name for cell in cells):
      raise UserError(f"--only={word} is in none of the names: {', '.join(cell.name for cell in cells)}")
  kept = [c for c in cells if (not scales or c.scale in scales) and (not only or any(word in c.name for word in only))]
  if not kept:
    raise UserError(f"--only={','.join(only)} leaves no network at --scales={','.join(f'{s:g}' for s in scales)}")
  return sorted(kept, key=lambda cell: cell.scale)
