"""The results of a run: kept as JSON and as a Markdown report, which are written anew whenever there is more."""

import dataclasses
import json
import os
import threading
from collections.abc import Mapping, Sequence

import tabulate

from benchmarks.gpu.cells import Part
from benchmarks.gpu.kernels import Kernel

SHOWN_KERNELS = 10


class Record:
  """What is known so far.

  Attributes:
    about: the machine and the settings, as plain JSON values.
    measured: name of a cell -> name of a function -> its figures; see `measuring.measure`.
    skipped: what was not measured for want of time, in words.
    notes: anything else that a reader has to know, in sentences.
    kernels: of one training step, the longest first; and of which, in words.
  """

  def __init__(self, folder: str, about: Mapping):
    self._folder, self._lock = folder, threading.Lock()
    self.about = about
    self.measured: dict[str, dict[str, dict]] = {}
    self.skipped: list[str] = []
    self.notes: list[str] = []
    self.kernels: tuple[str, Sequence[Kernel]] = ("", ())

  def add(self, part: Part, results: Mapping[str, dict]) -> None:
    """Keeps and writes the figures of a part. A cell's later part replaces its earlier one."""
    self.measured[str(part.cell)] = dict(results)
    self.save()

  def save(self) -> None:
    """Writes both files. A run that is killed at any time leaves whole ones."""
    with self._lock:
      self._write("results.json", json.dumps(self.as_json(), indent=1) + "\n")
      self._write("results.md", as_markdown(self))

  def as_json(self) -> dict:
    title, kernels = self.kernels
    listed = {"of": title, "kernels": [dataclasses.asdict(kernel) for kernel in kernels]}
    found = {"measured": self.measured, "skipped": self.skipped, "notes": self.notes}
    return {**self.about, **found, "longest_kernels": listed}

  def _write(self, name: str, text: str) -> None:
    path = os.path.join(self._folder, name)
    with open(f"{path}.new", "w") as file:
      file.write(text)
    os.replace(f"{path}.new", path)


def as_markdown(record: Record) -> str:
  """The report: the machine, a row for each function of each cell, what was skipped, and the longest kernels."""
  described = ", ".join(f"{name} {value}" for name, value in record.about["card"].items())
  versions = ", ".join(f"{name} {value}" for name, value in record.about["versions"].items())
  blocks = [
    f"# {record.about['title']}, {record.about['date']}",
    f"{record.about['device']} ({described or 'nvidia-smi gives no description'}); {versions}.",
    table(record.measured) if record.measured else "Nothing has been measured.",
  ]
  skipped = "Not measured, as too little time was left; --cells=FIRST-LAST chooses the cells of another run"
  lists = {"Notes": record.notes, skipped: record.skipped, "Failed": failures(record.measured)}
  for title, sentences in lists.items():
    if sentences:
      blocks.append(f"{title}:\n\n" + "\n".join(f"- {sentence}" for sentence in sentences))
  if record.kernels[1]:
    blocks += [f"## The longest kernels of {record.kernels[0]}", kernel_table(record.kernels[1])]
  return "\n\n".join(blocks) + "\n"


def table(measured: Mapping[str, Mapping[str, dict]]) -> str:
  """A row for each function that was measured."""
  rows = []
  for cell, results in measured.items():
    for name, figures in results.items():
      if "failed" not in figures:
        rows.append([cell, name, *(_figure(figures, *column) for column in _COLUMNS.values())])
  titles = ("cell", "function", *_COLUMNS)
  alignment = ("left", "left", *["right"] * len(_COLUMNS))
  return tabulate.tabulate(rows, titles, "github", disable_numparse=True, colalign=alignment if rows else None)


_COLUMNS = {
  "ms a step": ("ms", ",.2f"),
  "images/s": ("images_per_second", ",.0f"),
  "speed / PyTorch's": ("speedup", ".2f"),
  "memory, GiB": ("memory_gib", ".2f"),
  "prepared in, s": ("prepare_seconds", ".0f"),
}


def _figure(figures: Mapping, key: str, form: str) -> str:
  return "-" if figures[key] is None else format(figures[key], form)


def failures(measured: Mapping[str, Mapping[str, dict]]) -> list[str]:
  """What failed and why, in sentences."""
  return [
    f"{cell}, {name}: {figures['failed']}"
    for cell, results in measured.items()
    for name, figures in results.items()
    if "failed" in figures
  ]


def kernel_table(kernels: Sequence[Kernel]) -> str:
  """The longest kernels, and all of them together."""
  total, launches = sum(k.ms for k in kernels), sum(k.launches for k in kernels)
  rows = [
    [
      f"{k.ms:.3f}",
      _percent(k.ms, total),
      f"{k.launches:g}",
      k.layer,
      k.instruction,
      k.name[:60],
      k.operation[-60:],
    ]
    for k in kernels[:SHOWN_KERNELS]
  ]
  rows.append([f"{total:.3f}", "100 %", f"{launches:g}", f"all {len(kernels)}", "", "", ""])
  titles = ("ms a step", "of all", "launches", "layer", "HLO instruction", "kernel", "operation")
  escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
  return tabulate.tabulate(escaped, titles, "github", disable_numparse=True)


def _percent(part: float, whole: float) -> str:
  return f"{100 * part / whole:.1f} %" if whole else "-"
