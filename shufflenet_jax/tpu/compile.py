"""Compiles a config's train or inference step, also for devices that this machine does not have."""

import dataclasses
import re

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shufflenet_jax import tasks
from shufflenet_jax.config import settings
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import hlo
from shufflenet_jax.training.optimizer import sgd
from shufflenet_jax.training.step import compile_train_step, init_state

MODES = ("train", "infer")
# Identical instructions share their machine code. This changes neither the optimised HLO nor the estimated cycles, but
# compiling takes 10 % less time, and the program itself tens of megabytes less memory.
CODE_ONCE = {"xla_tpu_enable_deduplicated_calls": True}


class OutOfMemory(Exception):
  """The program does not fit the device. Attributes: used, limit: bytes, according to the compiler."""

  def __init__(self, used: int, limit: int):
    super().__init__(f"{used / 2**30:.2f} GiB of {limit / 2**30:.2f} GiB")
    self.used, self.limit = used, limit


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled step.

  Attributes:
    text: its optimised HLO.
    instructions: the same, parsed.
    batch: images per device and micro-batch.
    hbm_bytes: arguments, results and temporaries on a device.
  """

  text: str
  instructions: list[hlo.Instruction]
  batch: int
  hbm_bytes: int


def compile_step(model, config, devices, mode: str) -> Program:
  """The step of `config` with the network `model`, compiled over `devices`: `lower_step`, then `compile_lowered`."""
  return compile_lowered(lower_step(model, config, devices, mode))


@dataclasses.dataclass(frozen=True)
class Lowered:
  """A traced step, for `compile_lowered`.

  Attributes:
    stage: JAX's lowered step.
    batch: images per device and micro-batch.
    options: the compiler's options.
  """

  stage: jax.stages.Lowered
  batch: int
  options: dict


def lower_step(model, config, devices, mode: str) -> Lowered:
  """The step of `config` with the network `model`, traced for `devices`: a few seconds of Python.

  Args:
    model: a Flax module as `tasks.network` returns it.
    config: a config like that of `configs/imagenet.py`; its batch_size is global, for both modes.
    devices: from `topology.devices`, or real ones.
    mode: "train", the whole `train_step`; or "infer", uint8 images to logits, or to a detector's boxes and scores.

  Raises:
    UserError: a batch that does not divide over the devices.
  """
  data_mesh = mesh.data_mesh(devices)
  parts = 1
  if mode == "train":
    parts = mesh.micro_batches(config, data_mesh.size)
  else:
    mesh.check_batch_size("config.batch_size", config.batch_size, data_mesh.size)
  size = config.data.image_size
  task = tasks.build(model, config)
  optimizer, schedule = sgd(config.optimizer, config.num_train_steps)
  state = _on(data_mesh, PartitionSpec(), jax.eval_shape(lambda: init_state(model, optimizer, size, 0)))
  example = {"image": jax.ShapeDtypeStruct((size, size, 3), jnp.uint8), **task.targets}
  if config.data.flip and task.examples == "labels":  # boxes are mirrored with their pictures, on the host
    example["flip"] = jax.ShapeDtypeStruct((), jnp.bool_)
  batch = {k: jax.ShapeDtypeStruct((config.batch_size, *x.shape), x.dtype) for k, x in example.items()}
  batch = _on(data_mesh, PartitionSpec(mesh.AXIS), batch)
  if mode == "train":
    arguments = settings.step_arguments(config, parts)
    step = compile_train_step(data_mesh, task=task, optimizer=optimizer, schedule=schedule, **arguments)
    lowered = step.lower(state, batch)
  else:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    replicated, split = PartitionSpec(), PartitionSpec(mesh.AXIS)
    # A detector's second stage computes on regions that the first one finds, so its network alone is not its inference.
    function, inputs = (task.forward, batch["image"]) if task.examples == "labels" else (task.predict, batch)
    step = jax.shard_map(function, mesh=data_mesh, in_specs=(replicated, split), out_specs=split)
    lowered = jax.jit(step).lower(variables, inputs)
  options = CODE_ONCE if devices[0].platform == "tpu" else {}
  return Lowered(lowered, config.batch_size // data_mesh.size // parts, options)


def _on(data_mesh: Mesh, spec: PartitionSpec, tree):
  sharding = NamedSharding(data_mesh, spec)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_lowered(lowered: Lowered) -> Program:
  """Compiles a traced step, which takes minutes and uses all cores.

  Raises:
    UserError: the compiler rejects the step.
    OutOfMemory: the program does not fit.
  """
  try:
    compiled = lowered.stage.compile(compiler_options=lowered.options)
  except jax.errors.JaxRuntimeError as error:
    # "Ran out of memory in memory space hbm. Used 33.33G of 15.75G hbm."; or, if the temporaries alone do not fit, "the
    # total memory required for HLO temporaries (16.86G) exceeds available HBM (15.75G)."
    number = r"([\d.]+)([KMG])"
    found = re.search(rf"Used {number} of {number} hbm|\({number}\) exceeds available HBM \({number}\)", str(error))
    if not found:
      raise UserError(f"the compiler rejects the step: {str(error).splitlines()[0]}") from None
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}
    parts = [group for group in found.groups() if group]
    used, limit = (int(float(parts[i]) * unit[parts[i + 1]]) for i in (0, 2))
    raise OutOfMemory(used, limit) from None
  memory = compiled.memory_analysis()
  used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
  used += memory.generated_code_size_in_bytes - memory.alias_size_in_bytes
  text = compiled.as_text()
  return Program(text, hlo.parse(text), lowered.batch, used)
