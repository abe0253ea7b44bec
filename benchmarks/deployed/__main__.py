"""Actual inference time (Table 8 of the paper): exported networks in several runtimes, one thread, one picture.

    python -m benchmarks.deployed [--sizes=224x224] [--networks=0.5x,1x,2x,mobilenet,alexnet,alexnet-lrn]
        [--runtimes=litert,onnxruntime,...] [--rounds=15] [--json=FILE] [--plot=FILE.png]

It prints the milliseconds of one inference and the speedup over AlexNet in the same runtime, beside the paper's and the
theoretical one. All networks in all runtimes take turns, round by round, in one process, which is pinned to one core,
so that other work on the machine affects all of them; the figures are medians. Weights are random, as times do not
depend on them. Every runtime has to give the same logits. The file for the generic export is what torch.onnx makes of
pytorchcv's ShuffleNet, in onnxruntime like ours.

LiteRT, onnxruntime and XLA are measured always, others if they are installed. benchmarks/requirements.txt has OpenVINO
and ncnn; `make test-torch` installs PyTorch and pytorchcv. At 480x640 and 720x1280, AlexNet averages its last map down
to the 6x6 of 224x224 (benchmarks/deployed/networks.py says why), and there is no generic export to compare with.
benchmarks/arm64_instructions counts the instructions of the same files on ARM64.

Memory is in huge pages, as for the package's commands. `GLIBC_TUNABLES= python -m benchmarks.deployed` runs without
them: on a virtual machine, AlexNet with its 244 MB of weights then took up to twice as long, which inflates speedups.
"""

import argparse
import datetime
import json
import os
import warnings

from benchmarks.deployed import table8
from benchmarks.deployed.runtimes import RUNTIMES
from benchmarks.deployed.turns import CLOCKS
from benchmarks.flags import at_least, output_file
from shufflenet_jax import startup


def parsed_arguments() -> argparse.Namespace:
  """The command line's flags, checked; prints what is wrong and exits with 2 otherwise."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  installed = [name for name, runtime in RUNTIMES.items() if not runtime.missing]
  parser.add_argument("--sizes", default="224x224", help=f"some of {','.join(table8.SIZES)}")
  parser.add_argument("--networks", default=",".join(table8.NETWORKS))
  parser.add_argument("--runtimes", default=",".join(installed), help=f"some of {','.join(RUNTIMES)}")
  parser.add_argument("--rounds", type=at_least(1), default=15)
  parser.add_argument("--seconds", type=at_least(0, float), default=0.4, help="of each turn")
  parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, if the machine is busy")
  parser.add_argument("--json", type=output_file, help="file for the figures")
  parser.add_argument("--plot", type=output_file, help="PNG file for a plot of the speedups")
  arguments = parser.parse_args()
  for name, known in {"sizes": table8.SIZES, "networks": table8.NETWORKS, "runtimes": RUNTIMES}.items():
    values = getattr(arguments, name).split(",")
    if unknown := [value for value in values if value not in known]:
      parser.error(f"--{name}: {unknown[0]!r} is not one of {', '.join(known)}")
    setattr(arguments, name, [value for value in known if value in values])
  for name in arguments.runtimes:
    if missing := RUNTIMES[name].missing:
      parser.error(f"--runtimes: {name} needs {' and '.join(missing)}, which is not installed")
  return arguments


def pin_to_one_core() -> str:
  """Leaves one core to this process and to all threads that it starts from now on; returns which, in words."""
  if not hasattr(os, "sched_setaffinity"):
    return "not pinned to a core, as this system cannot; XLA may use more threads than one"
  core = max(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {core})
  return f"pinned to core {core}"


def main():
  arguments = parsed_arguments()
  startup.use_huge_pages()
  pinned = pin_to_one_core()  # before the runtimes are imported, some of which count the cores then
  os.environ["JAX_PLATFORMS"] = "cpu"
  from benchmarks.deployed import measuring, plot, report
  from benchmarks.train_step import cpu_name

  warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)  # by OpenVINO, when it is imported
  versions = {k: v for name in arguments.runtimes for k, v in RUNTIMES[name].versions.items()}
  print(f"{cpu_name()}, {pinned}; {versions}")
  if absent := [runtime.title for runtime in RUNTIMES.values() if runtime.missing]:
    print(f"not installed, see --help: {', '.join(absent)}")
  settings = {"cpu": cpu_name(), "pinned": pinned, "date": datetime.date.today().isoformat()}
  settings |= {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "")}
  settings |= {"versions": versions, "settings": vars(arguments)}
  sizes, turns = [], {name: getattr(arguments, name) for name in ("rounds", "seconds", "clock")}
  for size in arguments.sizes:
    sizes.append(measuring.measure(size, arguments.networks, arguments.runtimes, **turns))
    print(f"\n{report.as_text(sizes[-1])}", flush=True)
    if arguments.json:
      with open(arguments.json, "w") as file:
        json.dump(settings | {"sizes": {done.size: done.as_json() for done in sizes}}, file, indent=1)
    if arguments.plot:
      plot.save(sizes, arguments.plot)


if __name__ == "__main__":
  main()
