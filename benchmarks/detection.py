"""The TPU compiler's estimates for a training step of Faster R-CNN, without a TPU.

    python -m benchmarks.detection [--topology=v5e:2x4 --canvas=512 --pictures=8 --scale=1.0 --crop=14 --text=FILE]

Compiling takes minutes on two cores. Cycles are the compiler's estimate for one device. Sorts and gathers have none, so
they are counted apart, and a loop whose length is not known counts as one round: that of NMS, which has 3 to 10.
"""

import argparse
import collections
import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from shufflenet_jax.distributed import mesh
from shufflenet_jax.models.faster_rcnn import FasterRCNN
from shufflenet_jax.models.shufflenet import ShuffleNetV1
from shufflenet_jax.tasks.detection import objective
from shufflenet_jax.tasks.detection.settings import Settings
from shufflenet_jax.tasks.forward import normalize
from shufflenet_jax.tpu import hlo, topology
from shufflenet_jax.tpu.compile import Lowered, Program, compile_lowered

# Parts of a step, by what an instruction's scope contains; the first that fits counts.
PARTS = {
  "RoIAlign": "roi_align",
  "head": "/head/",
  "body": "/body/",
  "RPN": "/rpn",
  "NMS": "while",
}


def train_step(params, momentum, batch_stats, batch, *, model, optimizer, settings):
  """One SGD step on one device's pictures, with one all-reduce; runs inside `jax.shard_map`."""
  varying = functools.partial(jax.lax.pcast, axis_name=mesh.AXIS, to="varying")
  images = normalize(batch["image"], (128.0,) * 3, (64.0,) * 3)
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])

  def loss_of(params):
    return objective.loss(model, params, batch_stats, images, batch["targets"], keys, settings)

  total = jax.grad(loss_of, has_aux=True)(jax.tree.map(varying, params))
  grads, metrics = jax.lax.pmean(total, mesh.AXIS)
  updates, momentum = optimizer.update(grads, momentum, params)
  return optax.apply_updates(params, updates), momentum, metrics


def lower(topology_name: str, canvas: int, pictures: int, scale: float, crop: int) -> Lowered:
  """The step, traced for the devices of a topology with `pictures` on each."""
  devices = topology.devices(topology_name)
  data_mesh, settings = mesh.data_mesh(devices), Settings()
  model = FasterRCNN(ShuffleNetV1(groups=3, scale=scale, dtype=jnp.bfloat16), num_classes=80, crop=crop)
  optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.001, momentum=0.9))
  image = jax.ShapeDtypeStruct((1, canvas, canvas, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), image)
  momentum = jax.eval_shape(optimizer.init, variables["params"])
  n, shape = pictures * len(devices), jax.ShapeDtypeStruct
  batch = {
    "image": shape((n, canvas, canvas, 3), jnp.uint8),
    "index": shape((n,), jnp.uint32),
    "targets": {
      "boxes": shape((n, 100, 4), jnp.float32),
      "label": shape((n, 100), jnp.int32),
      "crowd": shape((n, 100), jnp.bool_),
      "size": shape((n, 2), jnp.float32),
    },
  }

  def on(spec, tree):
    sharding = NamedSharding(data_mesh, spec)
    return jax.tree.map(lambda x: shape(x.shape, x.dtype, sharding=sharding), tree)

  replicated, split = PartitionSpec(), PartitionSpec(mesh.AXIS)
  step = functools.partial(train_step, model=model, optimizer=optimizer, settings=settings)
  step = jax.shard_map(step, mesh=data_mesh, in_specs=(replicated,) * 3 + (split,), out_specs=replicated)
  state = on(replicated, (variables["params"], momentum, variables["batch_stats"]))
  lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*state, on(split, batch))
  return Lowered(lowered, pictures, {})


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
    "dynamic_dimensions": len(re.findall(r"\[[^\]]*<=", program.text)),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--topology", default="v5e:2x4")
  parser.add_argument("--canvas", type=int, default=512)
  parser.add_argument("--pictures", type=int, default=8, help="per device")
  parser.add_argument("--scale", type=float, default=1.0)
  parser.add_argument("--crop", type=int, default=14)
  parser.add_argument("--text", help="write the optimised HLO to this file")
  arguments = parser.parse_args()
  chosen = {name: value for name, value in vars(arguments).items() if name in ("canvas", "pictures", "scale", "crop")}
  program = compile_lowered(lower(arguments.topology, **chosen))
  if arguments.text:
    pathlib.Path(arguments.text).write_text(program.text)
  print(json.dumps({"topology": arguments.topology, **chosen, **report(program)}, indent=1))


if __name__ == "__main__":
  main()
