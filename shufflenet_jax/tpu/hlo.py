"""Parses compiled HLO text: the instructions, their estimated cost, and which of them only move activations."""

import collections
import dataclasses
import functools
import math
import re
import typing
from collections.abc import Callable, Iterator

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(?P<name>\S+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](?:\{([0-9,]*))?")
_OPERAND = re.compile(r"%([^\s,)]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation)=%([^\s,]+)")
_CONSTANT = re.compile(r"\bs32\[\]\S* constant\((\d+)\)")
_DYNAMIC = re.compile(r"\[(?:\d+,)*<=\d")
_UNIT = re.compile(r"\b(stage\d_unit\d+|stem|classifier)\b")
FLOATS = ("bf16", "f16", "f32")
# These change no values, only their place in memory.
MOVING = ("copy", "transpose", "reshape")
# These do not read or write values: they only name them, or call another computation.
NAMING = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "conditional", "call")
NAMING_TARGETS = ("ConcatBitcast", "AllocateBuffer")
# These could compute the shuffle instead of moving values.
PRODUCTS = ("convolution", "dot", "gather", "scatter", "sort", "custom-call")
REDUCING = ("all-reduce", "all-reduce-start")
EXCHANGING = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter", "ragged-all-to-all")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction of a compiled program.

  Attributes:
    name: as printed.
    opcode: as printed.
    arrays: (dtype, dimensions) of each array of the result.
    layouts: for each of these arrays the order of its dimensions in memory, as printed.
    operands: names of the instructions whose results it uses.
    op_name: scope and operation in the JAX program; "" if the compiler added the instruction.
    cycles: the compiler's estimate for one device; 0 if it gives none.
    in_fusion: whether it is inside a fusion.
    fused: of a fusion, the opcodes inside it and inside nested fusions.
    target: of a custom call, the name of the function that it calls.
    runs: how often it runs in one run of the program. In a loop's body that is the number of iterations, if the
      condition compares with a constant, as a `scan`'s does; otherwise once.
  """

  name: str
  opcode: str
  arrays: tuple[tuple[str, tuple[int, ...]], ...]
  op_name: str
  cycles: int
  in_fusion: bool
  layouts: tuple[str, ...] = ()
  operands: tuple[str, ...] = ()
  fused: frozenset[str] = frozenset()
  target: str = ""
  runs: int = 1

  @property
  def layer(self) -> str:
    """The network's layer and pass, for example `stage2_unit1 backward`; "elsewhere" if it is of no layer."""
    found = _UNIT.search(self.op_name)
    return (found[0] if found else "elsewhere") + (" backward" if "transpose(" in self.op_name else "")


class _Line(typing.NamedTuple):
  """One instruction's line of HLO text.

  Attributes:
    computation: name of the computation that the line is in.
    match: of `_INSTRUCTION`.
    called: role -> name of each computation that the instruction calls; `_CALLED` lists the roles.
  """

  computation: str
  match: re.Match
  called: dict[str, str]

  @property
  def is_fusion(self) -> bool:
    return self.match["opcode"] == "fusion"


def parse(text: str) -> list[Instruction]:
  """All instructions of an optimised HLO module, in the order of the text."""
  lines = list(_lines(text))
  runs, fused = _runs(lines), _fused(lines)
  return [_instruction(line, runs(line.computation), fused) for line in lines]


def _lines(text: str) -> Iterator[_Line]:
  computation = ""
  for line in text.splitlines():
    if opening := _COMPUTATION.match(line):
      computation = opening["name"]
    elif match := _INSTRUCTION.match(line):
      yield _Line(computation, match, dict(_CALLED.findall(match["rest"])))


def _instruction(line: _Line, runs: int, fused: dict[str, frozenset[str]]) -> Instruction:
  rest = line.match["rest"]
  arrays = _ARRAY.findall(line.match["shape"])
  op_name, cycles, target = (pattern.search(rest) for pattern in (_OP_NAME, _CYCLES, _TARGET))
  return Instruction(
    name=line.match["name"],
    opcode=line.match["opcode"],
    arrays=tuple((dtype, tuple(map(int, dims.split(","))) if dims else ()) for dtype, dims, _ in arrays),
    op_name=op_name[1] if op_name else "",
    cycles=int(cycles[1]) if cycles else 0,
    in_fusion=line.computation in fused,
    layouts=tuple(layout for *_, layout in arrays),
    operands=tuple(_OPERAND.findall(rest.partition(")")[0])),
    fused=fused[line.called["calls"]] if line.is_fusion else frozenset(),
    target=target[1] if target else "",
    runs=runs,
  )


def _runs(lines: list[_Line]) -> Callable[[str], int]:
  """A function from the name of a computation to how often it runs."""
  callers, constants = {}, collections.defaultdict(list)
  for line in lines:
    for role, name in line.called.items():
      callers[name] = (line.computation, line.called.get("condition") if role == "body" else None)
    constants[line.computation] += map(int, _CONSTANT.findall(line.match[0]))

  def runs(computation: str) -> int:
    caller, condition = callers.get(computation, (None, None))
    if caller is None:
      return 1
    # A condition with a single constant compares the loop's counter with it.
    return runs(caller) * (constants[condition][0] if len(constants[condition]) == 1 else 1)

  return functools.cache(runs)


def _fused(lines: list[_Line]) -> dict[str, frozenset[str]]:
  """Computation of a fusion -> the opcodes in it, a nested fusion being replaced by the opcodes in it."""
  inside = collections.defaultdict(list)
  for line in lines:
    inside[line.computation].append(line)

  def opcodes(computation: str) -> frozenset[str]:
    return frozenset(
      opcode
      for line in inside[computation]
      for opcode in (opcodes(line.called["calls"]) if line.is_fusion else [line.match["opcode"]])
    )

  return {line.called["calls"]: opcodes(line.called["calls"]) for line in lines if line.is_fusion}


@dataclasses.dataclass(frozen=True)
class Activations:
  """Distinguishes activations from other arrays by their number of elements: large, and different from any parameter's.

  Shapes cannot be used, because compilers split batches, and merge and reorder dimensions.

  Attributes:
    min_size: smallest number of elements of an activation.
    parameters: numbers of elements of parameters, and of group convolutions' kernels with zeros between the groups.
  """

  min_size: int
  parameters: frozenset[int] = frozenset()

  def __contains__(self, instruction: Instruction) -> bool:
    """Whether an instruction's result, or one of its results, is an activation."""
    sizes = (math.prod(dims) for dtype, dims in instruction.arrays if dtype in FLOATS)
    return any(size >= self.min_size and size not in self.parameters for size in sizes)


def cycles(instructions: list[Instruction], of: Activations | None = None) -> int:
  """The compiler's estimate for one run of the program on one device, in cycles.

  Custom calls and collective operations have no estimate and count 0.

  Args:
    instructions: of the program.
    of: count only instructions with an activation among their operands or results; None: all.
  """
  touching = {i.name for i in instructions if of is None or i in of}
  return sum(
    i.cycles * i.runs for i in instructions if not i.in_fusion and (i.name in touching or touching & set(i.operands))
  )


def all_reduces(instructions: list[Instruction]) -> list[Instruction]:
  """The all-reduces, each as often as it runs. An asynchronous one is counted at its start."""
  return [i for i in instructions if i.opcode in REDUCING for _ in range(i.runs)]


def exchanges(instructions: list[Instruction]) -> list[Instruction]:
  """The other communication between devices (gathers, scatters, permutations), counted as in `all_reduces`."""
  return [i for i in instructions if i.opcode.removesuffix("-start") in EXCHANGING for _ in range(i.runs)]


def dynamic_dimensions(text: str) -> int:
  """How often a module's text mentions an array with a dimension of which only a bound is known: f32[<=100,4]."""
  return len(_DYNAMIC.findall(text))


def moves(instructions: list[Instruction], of: Activations) -> list[Instruction]:
  """Copies, transposes and reshapes of activations that run on their own, and fusions that consist of nothing else.

  Bitcasts, which cost nothing, do not count; copies to another memory in the background (copy-start) count only if they
  change the layout.
  """
  return [i for i in instructions if not i.in_fusion and i in of and _is_move(i)]


def _is_move(i: Instruction) -> bool:
  if i.opcode == "fusion":
    return bool(i.fused & set(MOVING)) and i.fused <= {*MOVING, *NAMING}
  if i.opcode == "copy-start":
    return i.layouts[0] != i.layouts[1]
  return i.opcode in MOVING


def work(instructions: list[Instruction], of: Activations) -> collections.Counter:
  """How often activations are computed in one run of the program.

  Returns:
    "passes" -> the number of fusions and other instructions that run on their own, without those that only name values
    or move them between memories in the background; and the number of each of `PRODUCTS`, also inside fusions, because
    the compiler may merge a product into another instruction's pass.
  """
  counts = collections.Counter()
  for i in instructions:
    if i in of and i.target not in NAMING_TARGETS:
      if i.opcode in PRODUCTS:
        counts[i.opcode] += i.runs
      if not (i.in_fusion or i.opcode in NAMING or i.opcode.endswith(("-start", "-done"))):
        counts["passes"] += i.runs
  return counts
