"""The TPU compiler's estimates for a training step of Faster R-CNN, without a TPU.

    python -m benchmarks.detection [--topology=v5e:2x4 --size=300 --pictures=8 --scale=1.0 --crop=14 --text=FILE]

Compiling takes minutes on two cores. Cycles are the compiler's estimate for one device. Sorts and gathers have none, so
they are counted apart, and a loop whose length is not known counts as one round: that of NMS, which has 3 to 10.
"""

import argparse
import collections
import json
import pathlib

from benchmarks.flags import output_file
from configs import coco
from shufflenet_jax import tasks
from shufflenet_jax.tpu import hlo, topology
from shufflenet_jax.tpu.compile import Lowered, Program, compile_lowered, lower_step

# Parts of a step, by what an instruction's scope contains; the first that fits counts.
PARTS = {
  "RoIAlign": "roi_align",
  "head": "/head/",
  "body": "/body/",
  "RPN": "/rpn",
  "NMS": "while",
}


def lower(topology_name: str, size: int, pictures: int, scale: float, crop: int) -> Lowered:
  """The training step of configs/coco.py, traced for the devices of a topology with `pictures` on each."""
  devices = topology.devices(topology_name)
  config = coco.get_config(f"size={size},scale={scale},groups=3")
  config.batch_size, config.detection.crop = pictures * len(devices), crop
  return lower_step(tasks.network(config), config, devices, "train")


def report(program: Program) -> dict:
  """What a compiled step takes: cycles altogether and by part, memory, and what a fast program must not have."""
  by_part = collections.Counter()
  for i in program.instructions:
    if not i.in_fusion and i.cycles:
      part = next((name for name, scope in PARTS.items() if scope in i.op_name), "elsewhere")
      by_part[part] += i.cycles * i.runs
  return {
    "cycles": hlo.cycles(program.instructions),
    "cycles_by_part": dict(by_part.most_common()),
    "hbm_gib": round(program.hbm_bytes / 2**30, 2),
    "without_estimate": {
      opcode: [
        f"{dtype}{list(dims)}" for i in program.instructions if i.opcode == opcode for dtype, dims in i.arrays[:1]
      ]
      for opcode in ("sort", "gather", "scatter")
    },
    "all_reduces": len(hlo.all_reduces(program.instructions)),
    "loops": sum(i.opcode == "while" for i in program.instructions),
    "dynamic_dimensions": hlo.dynamic_dimensions(program.text),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--topology", default="v5e:2x4")
  parser.add_argument("--size", type=int, default=300, help="of configs/coco.py: 300 has a canvas of 512, 600 of 1024")
  parser.add_argument("--pictures", type=int, default=8, help="per device")
  parser.add_argument("--scale", type=float, default=1.0)
  parser.add_argument("--crop", type=int, default=14)
  parser.add_argument("--text", type=output_file, help="write the optimised HLO to this file")
  arguments = parser.parse_args()
  chosen = {name: value for name, value in vars(arguments).items() if name in ("size", "pictures", "scale", "crop")}
  program = compile_lowered(lower(arguments.topology, **chosen))
  if arguments.text:
    pathlib.Path(arguments.text).write_text(program.text)
  print(json.dumps({"topology": arguments.topology, **chosen, **report(program)}, indent=1))


if __name__ == "__main__":
  main()
