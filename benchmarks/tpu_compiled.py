"""Compares formulations (the values of `lowering`) by the TPU compiler's estimates of a step, without a TPU.

    python -m benchmarks.tpu_compiled [--topologies=v5e:2x4 --groups=3 --scales=1.0 --modes=train,infer]

The whole table takes hours on two cores. Each row is printed, and written to the JSON file, once it is compiled;
rows that are in the file already are not compiled again, so delete the file when the code has changed. Cycles are the
compiler's estimate, for 128 images on one device.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import json
import pathlib
import sys
import time

from benchmarks.flags import output_file
from configs import imagenet
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.models.formulations.choose import LOWERINGS
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS
from shufflenet_jax.tpu import hlo, topology
from shufflenet_jax.tpu.compile import MODES, OutOfMemory, compile_step

IMAGES_PER_DEVICE = 128  # the paper's 1024 over eight chips


def measure(topology_name: str, groups: int, scale: float, mode: str, lowering: str) -> dict:
  """Compiles one step; returns a row of the table: estimated cycles, all-reduces, bytes of memory, compilation time."""
  config = imagenet.get_config(f"scale={scale},groups={groups},lowering={lowering}")
  devices = topology.devices(topology_name)
  config.batch_size = IMAGES_PER_DEVICE * len(devices)
  began = time.monotonic()
  program = compile_step(build.network(config.model), config, devices, mode)
  return {
    "topology": topology_name,
    "groups": groups,
    "scale": scale,
    "mode": mode,
    "lowering": lowering,
    "cycles": hlo.cycles(program.instructions),
    "all_reduces": len(hlo.all_reduces(program.instructions)),
    "hbm_bytes": program.hbm_bytes,
    "compile_seconds": round(time.monotonic() - began),
    "jax": importlib.metadata.version("jax"),
    "libtpu": importlib.metadata.version("libtpu"),
    "date": datetime.date.today().isoformat(),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--topologies", default="v4:2x2x1,v5e:2x4,v5p:2x2x1,v6e:2x4")
  parser.add_argument("--groups", default="3,8")
  parser.add_argument("--scales", default="0.5,1.0,2.0")
  parser.add_argument("--modes", default=",".join(MODES))
  parser.add_argument("--lowerings", default="reference,auto")
  parser.add_argument("--json", type=output_file, default="benchmarks/tpu_compiled.json")
  arguments = parser.parse_args()
  choices = {"modes": MODES, "lowerings": LOWERINGS, "groups": tuple(map(str, STAGE2_CHANNELS))}
  for name, known in choices.items():
    for value in getattr(arguments, name).split(","):
      if value not in known:
        parser.error(f"--{name}: {value!r} is not one of {', '.join(known)}")
  path = pathlib.Path(arguments.json)
  try:
    scales = [float(scale) for scale in arguments.scales.split(",")]
    for name in arguments.topologies.split(","):
      topology.devices(name)
    rows = json.loads(path.read_text()) if path.exists() else []
  except UserError as error:
    parser.error(str(error))
  except (OSError, ValueError) as error:
    parser.error(f"--scales={arguments.scales} --json={path}: {error}")
  libtpu, failed = importlib.metadata.version("libtpu"), 0

  def find(*key):
    names = ("topology", "groups", "scale", "mode", "lowering")
    return next((row for row in rows if tuple(row[name] for name in names) == key and row["libtpu"] == libtpu), None)

  print(f"{'topology':10} {'g':>2} {'scale':>5} {'mode':6} {'lowering':10} {'M cycles':>9} {'of reference':>13}")
  settings = itertools.product(
    arguments.topologies.split(","),
    map(int, arguments.groups.split(",")),
    scales,
    arguments.modes.split(","),
    arguments.lowerings.split(","),
  )
  for key in settings:
    row = find(*key)
    if row is None:
      try:
        row = measure(*key)
      except (UserError, OutOfMemory) as error:
        print(f"{key}: {error}", flush=True)
        failed = 1
        continue
      rows.append(row)
      path.write_text(json.dumps(rows, indent=1))
    reference = find(*key[:4], "reference")
    ratio = f"{row['cycles'] / reference['cycles']:13.2f}" if reference else ""
    name, groups, scale, mode, lowering = key
    print(f"{name:10} {groups:2} {scale:5} {mode:6} {lowering:10} {row['cycles'] / 1e6:9.2f} {ratio}", flush=True)
  return failed


if __name__ == "__main__":
  sys.exit(main())
