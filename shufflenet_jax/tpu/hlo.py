"""Reads compiled HLO text: what runs, at what estimated cost, and which instructions move activations about."""

import collections
import dataclasses
import math
import re

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(?P<name>\S+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation)=%([^\s,]+)")
_CONSTANT = re.compile(r"\bs32\[\]\S* constant\((\d+)\)")
_UNIT = re.compile(r"\b(stage\d_unit\d+|stem|classifier)\b")
# What changes no value, only where it lies; copy-start and copy-done move between memories in the background.
MOVING = ("copy", "transpose", "reshape")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction of a compiled program.

  Attributes:
    name, opcode: as printed.
    arrays: (dtype, dimensions) of each array of its result.
    op_name: scope and operation in the JAX program; "" for what the compiler added.
    cycles: the compiler's estimate for one device; 0 where it gives none.
    in_fusion: whether it is inside a fusion.
    runs: how often it runs in one run of the program: in a loop's body, as often as the loop's condition says, if that
      compares with a constant, as a `scan`'s does; otherwise once.
  """

  name: str
  opcode: str
  arrays: tuple[tuple[str, tuple[int, ...]], ...]
  op_name: str
  cycles: int
  in_fusion: bool
  runs: int = 1

  @property
  def layer(self) -> str:
    """The network's layer, forward or backward: `stage2_unit1 backward`."""
    found = _UNIT.search(self.op_name)
    return (found[0] if found else "elsewhere") + (" backward" if "transpose(" in self.op_name else "")


def parse(text: str) -> list[Instruction]:
  """All instructions of an optimised HLO module, in order."""
  fused = set(re.findall(r"\bfusion\(.*?calls=%([^\s,]+)", text))
  instructions, computation = [], ""
  computations, callers, limits = [], {}, collections.defaultdict(list)
  for line in text.splitlines():
    if opening := _COMPUTATION.match(line):
      computation = opening["name"]
    elif found := _INSTRUCTION.match(line):
      arrays = tuple((d, tuple(map(int, n.split(","))) if n else ()) for d, n in _ARRAY.findall(found["shape"]))
      called = dict(_CALLED.findall(found["rest"]))
      callers |= {
        name: (computation, called.get("condition") if how == "body" else None) for how, name in called.items()
      }
      limits[computation] += map(int, _CONSTANT.findall(line))
      computations.append(computation)
      op_name, cycles = _OP_NAME.search(found["rest"]), _CYCLES.search(found["rest"])
      instructions.append(
        Instruction(
          found["name"],
          found["opcode"],
          arrays,
          op_name[1] if op_name else "",
          int(cycles[1]) if cycles else 0,
          computation in fused,
        )
      )

  def runs(computation: str) -> int:
    caller, condition = callers.get(computation, (None, None))
    if caller is None:
      return 1
    return runs(caller) * (limits[condition][0] if len(limits[condition]) == 1 else 1)

  return [dataclasses.replace(i, runs=runs(c)) if c in callers else i for i, c in zip(instructions, computations)]


def cycles(instructions: list[Instruction]) -> int:
  """The compiler's estimate for one run of the program on one device; custom and collective operations count 0."""
  return sum(i.cycles * i.runs for i in instructions if not i.in_fusion)


def all_reduces(instructions: list[Instruction]) -> list[Instruction]:
  """The all-reduces, an asynchronous one counted where it starts, one in a loop as often as it runs."""
  return [i for i in instructions if i.opcode in ("all-reduce", "all-reduce-start") for _ in range(i.runs)]


def is_activation(instruction: Instruction, batch: int, smallest: int) -> bool:
  """Whether a result has the device's `batch`, or a multiple, as a dimension, and batch * `smallest` elements."""
  return any(
    math.prod(dims) >= batch * smallest and any(d % batch == 0 for d in dims) for _, dims in instruction.arrays
  )


def moves(instructions: list[Instruction], batch: int, smallest: int) -> list[Instruction]:
  """Copies, transposes and reshapes of activations that run on their own; bitcasts, which cost nothing, are none."""
  return [i for i in instructions if i.opcode in MOVING and not i.in_fusion and is_activation(i, batch, smallest)]
