"""`python -m tests.bucket.table [--to=FILE]` measures how commands end under each fault, at each moment of a run.

Every cell is real processes with the patience that users have: it ends, and where it failed the same command is run
again without the fault. Prints a row of a Markdown table as soon as it is known: how the command ended, after how many
seconds, what it said, and whether the final arrays are those of an undisturbed local run. Takes about half an hour.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bucket import faults
from tests.bucket.bucket import EmulatedBucket
from tests.bucket.faults import Fault, cut, slow, status
from tests.bucket.server import Server
from tests.chaos import runs

FIELDS = {"num_train_steps": 100, "log_every_steps": 10, "eval_every_steps": 50, "checkpoint_every_steps": 20}
KINDS = {
  "503, ten times": lambda b: [Fault(status(503), times=10)],
  "429, ten times": lambda b: [Fault(status(429), times=10)],
  "cut in a body, ten times": lambda b: [Fault(cut(100), times=10)],
  "an expired token": lambda b: faults.expired_tokens(b.server.metadata.issued),
  "answers half a second late": lambda b: [Fault(slow(0.5))],
  "503 without end": lambda b: [Fault(status(503))],
  "a token that cannot be renewed": lambda b: faults.expired_tokens(b.server.metadata.issued, refreshable=False),
  "no such bucket": lambda b: faults.no_such_bucket(),
  "no permission to read": lambda b: faults.no_leave_to_read(),
  "no permission to write": lambda b: faults.no_leave_to_write(),
}
MOMENTS = ("start", "middle", "save", "restore", "evaluate")


class Cell:
  """One fault at one moment."""

  def __init__(self, server, number, kind, moment, local, stopped):
    self.bucket = EmulatedBucket(server, f"table-{number}")
    self.kind, self.moment, self.local = kind, moment, local
    self.workdir, self.data = f"{self.bucket.url}/run", f"{self.bucket.url}/data"
    self.bucket.upload_folder(local / "data/digits", "data/digits")
    if moment in ("restore", "evaluate"):
      self.bucket.upload_folder(stopped, "run")
    self.environment = self.bucket.environment(
      fixed_token=False, JAX_COMPILATION_CACHE_DIR=str(local / "data/compiled")
    )

  def order(self):
    made = KINDS[self.kind](self.bucket)
    for fault in made:
      fault.bucket = fault.bucket or self.bucket.name
      if fault.operations == {"token"}:
        fault.bucket = ""
      elif self.moment == "save":
        fault.name = "checkpoints/40/"
    self.bucket.faults.add(*made)

  def train(self):
    return runs.Process(self.workdir, self.data, 1, self.environment, **FIELDS)

  def evaluate(self):
    began = time.monotonic()
    done = subprocess.run(
      [sys.executable, "-m", "shufflenet_jax.evaluate", f"--checkpoint={self.workdir}"],
      cwd=runs.ROOT, env=runs.environment(self.local / "data/compiled") | self.environment, capture_output=True,
      text=True, timeout=900,
    )  # fmt: skip
    return done.returncode, time.monotonic() - began, done.stderr

  def run(self) -> str:
    """A row of the table."""
    if self.moment != "middle":
      self.order()
    if self.moment == "evaluate":
      code, seconds, said = self.evaluate()
    else:
      process = self.train()
      if self.moment == "middle":
        process.wait_for("step 30/")
        self.order()
      code = process.wait(900)
      seconds, said = time.monotonic() - process.began, process.said()
    moved = [n for n in self.bucket.names("run/damaged/") if n.endswith("description/metadata")]
    whole = sorted(
      int(n.split("/")[2]) for n in self.bucket.names("run/checkpoints") if n.endswith("description/metadata")
    )
    self.bucket.faults.clear()
    same = ""
    if self.moment != "evaluate":
      if code:
        again = self.train()
        assert again.wait(300) == 0, again.said()
      self.bucket.download_folder("run/checkpoints/100", place := Path(tempfile.mkdtemp()) / "100")
      same = "the same bits" if same_arrays(place, self.local / "run") else "OTHER BITS"
    ends = [line for line in said.splitlines() if line.startswith(("error:", "Traceback", "waiting", "note:"))]
    text = ends[-1].replace(self.workdir, "WORKDIR").replace(self.bucket.url, "gs://BUCKET") if ends else ""
    left = f"{'MOVED ' + str(moved) if moved else ''}{'TRACEBACK' if 'Traceback' in said else ''} {whole}"
    return f"| {self.kind} | {self.moment} | {code} | {seconds:.0f} | {left.strip()} | {same} | {text} |"


def same_arrays(one, other) -> bool:
  from shufflenet_jax.checkpoints import checkpoint

  arrays, expected = (checkpoint.find(str(path)).read_arrays() for path in (one, other))
  return arrays.keys() == expected.keys() and all(np.array_equal(arrays[k], expected[k]) for k in arrays)


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m tests.bucket.table", description=__doc__)
  parser.add_argument("--to", type=Path, default=Path("/dev/null"), help="a file to write the rows to as well")
  parser.add_argument("--kinds", default=",".join(range_of(KINDS)), help="their numbers (default: %(default)s)")
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder, flags.to.open("w") as file:
    local = Path(folder)
    process = runs.Process(local / "run", local / "data", 1, **FIELDS)
    assert process.wait() == 0, process.said()
    process = runs.Process(local / "stopped", local / "data", 1, **(FIELDS | {"num_train_steps": 100}))
    process.wait_for("step 50/")
    process.signal(15)
    assert process.wait() == 75, process.said()
    certificates = local / "certificates"
    certificates.mkdir()
    server = Server(certificates).start()
    number = 0
    for kind in (list(KINDS)[int(n)] for n in flags.kinds.split(",")):
      for moment in MOMENTS:
        number += 1
        server.reset()
        row = Cell(server, number, kind, moment, local, local / "stopped").run()
        print(row, flush=True)
        print(row, file=file, flush=True)
    server.stop()


def range_of(values) -> list[str]:
  return [str(i) for i in range(len(values))]


if __name__ == "__main__":
  main()
