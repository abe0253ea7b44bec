"""Reads compiled HLO text: what runs, at what estimated cost, and which instructions move activations about."""

import collections
import dataclasses
import functools
import math
import re

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(?P<name>\S+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](?:\{([0-9,]*))?")
_OPERAND = re.compile(r"%([^\s,)]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation)=%([^\s,]+)")
_CONSTANT = re.compile(r"\bs32\[\]\S* constant\((\d+)\)")
_UNIT = re.compile(r"\b(stage\d_unit\d+|stem|classifier)\b")
FLOATS = ("bf16", "f16", "f32")
# What changes no value, only where it lies.
MOVING = ("copy", "transpose", "reshape")
# What takes no pass of its own over its values: it names them, or is awaited in the background.
NAMING = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "conditional", "call")
NAMING_TARGETS = ("ConcatBitcast", "AllocateBuffer")
# What could shuffle without moving.
PRODUCTS = ("convolution", "dot", "gather", "scatter", "sort", "custom-call")
REDUCING = ("all-reduce", "all-reduce-start")
EXCHANGING = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter", "ragged-all-to-all")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction of a compiled program.

  Attributes:
    name, opcode: as printed.
    arrays: (dtype, dimensions) of each array of its result.
    layouts: of each of them, the order of its dimensions in memory, as printed.
    operands: names of the instructions whose results it takes.
    op_name: scope and operation in the JAX program; "" for what the compiler added.
    cycles: the compiler's estimate for one device; 0 where it gives none.
    in_fusion: whether it is inside a fusion.
    fused: of a fusion, the opcodes inside, also of fusions inside it.
    target: of a custom call, what it calls.
    runs: how often it runs in one run of the program: in a loop's body, as often as the loop's condition says, if that
      compares with a constant, as a `scan`'s does; otherwise once.
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
    """The network's layer, forward or backward: `stage2_unit1 backward`."""
    found = _UNIT.search(self.op_name)
    return (found[0] if found else "elsewhere") + (" backward" if "transpose(" in self.op_name else "")


def parse(text: str) -> list[Instruction]:
  """All instructions of an optimised HLO module, in order."""
  lines, computation = [], ""  # (computation it is in, the line's parts, how -> computation that it calls)
  for line in text.splitlines():
    if opening := _COMPUTATION.match(line):
      computation = opening["name"]
    elif found := _INSTRUCTION.match(line):
      lines.append((computation, found, dict(_CALLED.findall(found["rest"]))))
  runs, fused = _runs(lines), _fused(lines)
  instructions = []
  for computation, found, called in lines:
    arrays = _ARRAY.findall(found["shape"])
    op_name, cycles, target = (pattern.search(found["rest"]) for pattern in (_OP_NAME, _CYCLES, _TARGET))
    instructions.append(
      Instruction(
        found["name"],
        found["opcode"],
        tuple((dtype, tuple(map(int, dims.split(","))) if dims else ()) for dtype, dims, _ in arrays),
        op_name[1] if op_name else "",
        int(cycles[1]) if cycles else 0,
        in_fusion=computation in fused,
        layouts=tuple(layout for *_, layout in arrays),
        operands=tuple(_OPERAND.findall(found["rest"].partition(")")[0])),
        fused=fused[called["calls"]] if found["opcode"] == "fusion" else frozenset(),
        target=target[1] if target else "",
        runs=runs(computation),
      )
    )
  return instructions


def _runs(lines):
  """computation -> how often it runs."""
  callers, limits = {}, collections.defaultdict(list)
  for computation, found, called in lines:
    for how, name in called.items():
      callers[name] = (computation, called.get("condition") if how == "body" else None)
    limits[computation] += map(int, _CONSTANT.findall(found[0]))

  def runs(computation):
    caller, condition = callers.get(computation, (None, None))
    if caller is None:
      return 1
    return runs(caller) * (limits[condition][0] if len(limits[condition]) == 1 else 1)

  return functools.cache(runs)


def _fused(lines) -> dict[str, frozenset[str]]:
  """Of each computation that is a fusion's: the opcodes in it; a fusion in it gives those of its own."""
  inside = collections.defaultdict(list)
  for computation, found, called in lines:
    inside[computation].append((found["opcode"], called.get("calls")))

  def opcodes(computation):
    return frozenset(
      name for opcode, calls in inside[computation] for name in (opcodes(calls) if opcode == "fusion" else [opcode])
    )

  return {called["calls"]: opcodes(called["calls"]) for _, found, called in lines if found["opcode"] == "fusion"}


@dataclasses.dataclass(frozen=True)
class Activations:
  """Tells activations from what else a program computes with: they are larger, and of no parameter's size.

  By size and not by shape: compilers split batches, merge dimensions and reorder them.

  Attributes:
    least: elements that each has at the least.
    parameters: numbers of elements that parameters have, also with the zeros between groups filled in.
  """

  least: int
  parameters: frozenset[int] = frozenset()

  def __contains__(self, instruction: Instruction) -> bool:
    """Whether its result, or one of them, is an activation."""
    sizes = (math.prod(dims) for dtype, dims in instruction.arrays if dtype in FLOATS)
    return any(size >= self.least and size not in self.parameters for size in sizes)


def cycles(instructions: list[Instruction], of: Activations | None = None) -> int:
  """The compiler's estimate for one run of the program on one device; custom and collective operations count 0.

  With `of`, for those instructions alone that take or make such.
  """
  touching = {i.name for i in instructions if of is None or i in of}
  return sum(
    i.cycles * i.runs for i in instructions if not i.in_fusion and (i.name in touching or touching & set(i.operands))
  )


def all_reduces(instructions: list[Instruction]) -> list[Instruction]:
  """The all-reduces, an asynchronous one counted where it starts, one in a loop as often as it runs."""
  return [i for i in instructions if i.opcode in REDUCING for _ in range(i.runs)]


def exchanges(instructions: list[Instruction]) -> list[Instruction]:
  """What else devices send each other: gathers, scatters and permutations, counted likewise."""
  return [i for i in instructions if i.opcode.removesuffix("-start") in EXCHANGING for _ in range(i.runs)]


def moves(instructions: list[Instruction], of: Activations) -> list[Instruction]:
  """Copies, transposes and reshapes of activations that run on their own, or are all that a fusion does.

  Bitcasts, which cost nothing, are none; nor are copies to another memory in
  the background (copy-start), unless they change the layout on the way.
  """
  return [i for i in instructions if not i.in_fusion and i in of and _is_move(i)]


def _is_move(i: Instruction) -> bool:
  if i.opcode == "fusion":
    return bool(i.fused & set(MOVING)) and i.fused <= {*MOVING, *NAMING}
  if i.opcode == "copy-start":
    return i.layouts[0] != i.layouts[1]
  return i.opcode in MOVING


def work(instructions: list[Instruction], of: Activations) -> collections.Counter:
  """How often activations are computed, in one run of the program.

  Returns:
    "passes": fusions and whatever else runs on its own, but what only names values or moves them between memories in
    the background; and each of `PRODUCTS`, also inside fusions: the compiler may put one into another's pass.
  """
  counts = collections.Counter()
  for i in instructions:
    if i in of and i.target not in NAMING_TARGETS:
      if i.opcode in PRODUCTS:
        counts[i.opcode] += i.runs
      if not (i.in_fusion or i.opcode in NAMING or i.opcode.endswith(("-start", "-done"))):
        counts["passes"] += i.runs
  return counts
