"""Instructions that one inference executes on ARM64, in LiteRT: repeatable where times are not (Table 8).

    benchmarks/arm64_instructions/set_up.sh FOLDER
    python -m benchmarks.arm64_instructions --machine=FOLDER [--networks=0.5x,1x,2x,mobilenet,alexnet] [--json=FILE]

QEMU emulates the machine, whose processor calls itself the one of the paper, a Snapdragon 820: LiteRT has different
kernels for different processors. Instructions are not time, as they differ in how long they take, and waiting for
memory is no instruction. One thread, one picture of 224x224. All networks take three minutes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

import tabulate

from benchmarks.deployed import table8
from benchmarks.flags import output_file

SIZE = "224x224"
INFERENCES = 3
_PROCESSOR = "cortex-a57"  # the same instructions as a Snapdragon 820: ARMv8.0


def instructions(file: pathlib.Path, machine: pathlib.Path) -> int:
  """Instructions of one inference of a .tflite file: the median of a few."""
  script = pathlib.Path(__file__).with_name("inference.py")
  emulator = ["qemu-aarch64", "-cpu", _PROCESSOR, "-L", machine / "root", "-plugin", machine / "count.so"]
  python = [machine / "root/usr/bin/python3", "-B", script, file, str(INFERENCES)]
  environment = os.environ | {"PYTHONPATH": str(machine / "packages"), "PYTHONHASHSEED": "0"}
  done = subprocess.run([*emulator, *python], env=environment, capture_output=True, text=True)
  if done.returncode:
    raise SystemExit(f"error: the emulated inference failed:\n{done.stderr}")
  counts = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("instructions ")]
  if len(counts) <= INFERENCES:
    raise SystemExit(f"error: {INFERENCES + 1} counts were expected, and {len(counts)} came:\n{done.stderr}")
  counts = counts[-INFERENCES - 1 :]
  return int(statistics.median(after - before for before, after in zip(counts, counts[1:])))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--machine", required=True, help="folder that set_up.sh made")
  parser.add_argument("--networks", default=",".join(table8.NETWORKS), help="some of the default")
  parser.add_argument("--json", type=output_file, help="file for the figures")
  arguments = parser.parse_args()
  names, machine = arguments.networks.split(","), pathlib.Path(arguments.machine).resolve()
  if unknown := [name for name in names if name not in table8.NETWORKS]:
    parser.error(f"--networks: {unknown[0]!r} is not one of {', '.join(table8.NETWORKS)}")
  if not (machine / "packages").is_dir():
    parser.error(f"--machine={arguments.machine} is no folder that set_up.sh made")
  os.environ["JAX_PLATFORMS"] = "cpu"
  from benchmarks.deployed import networks, report, runtimes

  counts, multiply_adds = {}, {}
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "network.tflite")
    for name in names:
      network = networks.make(name, table8.SIZES[SIZE])
      file.write_bytes(runtimes.file_of(network, ".tflite"))
      counts[name], multiply_adds[name] = instructions(file, machine), network.multiply_adds
      print(f"{name}: {counts[name] / 1e6:.1f} million instructions", flush=True)
  ms = {name: table8.NETWORKS[name].paper_ms[SIZE] for name in names if table8.NETWORKS[name].paper_ms}
  speedups = {
    "by instructions": report.over_baseline(counts),
    "by multiply-adds": report.over_baseline(multiply_adds),
    "the paper, by time": report.over_baseline(ms),
  }
  rows = [
    [table8.NETWORKS[name].title, counts[name] / 1e6, multiply_adds[name] / 1e6]
    + [values.get(name) for values in speedups.values()]
    for name in names
  ]
  headers = ("network", "M instructions", "M multiply-adds", *speedups)
  print(tabulate.tabulate(rows, headers, "github", floatfmt=("", ".1f", ".1f", ".2f", ".2f", ".2f"), missingval="-"))
  if arguments.json:
    with open(arguments.json, "w") as file:
      json.dump({"instructions": counts, "multiply_adds": multiply_adds, "speedups": speedups}, file, indent=1)


if __name__ == "__main__":
  main()
