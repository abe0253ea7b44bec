"""Our training step and our inference, compiled ahead of the first call."""

import dataclasses
import functools
import time
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.gpu.cells import Cell, Sizes
from benchmarks.random_values import random_values
from benchmarks.train_step import MEAN, STD
from shufflenet_jax.distributed.mesh import AXIS, data_mesh, replicate, split_batch
from shufflenet_jax.models.shufflenet import ShuffleNetV1
from shufflenet_jax.tasks.classification import Classification
from shufflenet_jax.tasks.forward import Forward
from shufflenet_jax.training import optimizer as optimizers
from shufflenet_jax.training.step import compile_train_step, init_state

# The recipe of the paper, with a learning rate at which random labels do no harm. in_torch.py has the same.
RECIPE = types.SimpleNamespace(
  learning_rate=0.01, warmup_steps=0, momentum=0.9, weight_decay=4e-5, decay="kernels", label_smoothing=0.0
)
_NUM_STEPS = 300_000


@dataclasses.dataclass
class Program:
  """A function that is ready to be timed.

  Attributes:
    run: runs that many steps, and waits for their end.
    prepare_seconds: for tracing and compiling; PyTorch's includes the first steps.
    memory_gib: of device memory that a step needs: by XLA's plan, or PyTorch's peak.
    hlo: the compiled program as text; "" for PyTorch.
  """

  run: Callable[[int], None]
  prepare_seconds: float
  memory_gib: float | None
  hlo: str = ""


def pictures(cell: Cell, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
  """Random images, uint8 (n, h, w, 3), and labels, int32 (n,)."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (cell.batch, sizes.image_size, sizes.image_size, 3), np.uint8)
  return images, random.integers(0, sizes.num_classes, cell.batch, np.int32)


def lowered(cell: Cell, sizes: Sizes, name: str) -> Callable[[], Program]:
  """Traces the step or the inference of a formulation; what is returned compiles it.

  The devices are not used before the program is compiled, so that tracing disturbs nothing that runs on them.
  """
  began = time.perf_counter()
  task, optimizer, schedule = _task(cell, sizes, name)
  state = jax.eval_shape(lambda: init_state(task.forward.model, optimizer, sizes.image_size, 0))
  images, labels = pictures(cell, sizes)
  if cell.mode == "train":
    mesh = data_mesh(jax.devices()[:1])
    step = compile_train_step(mesh, task=task, optimizer=optimizer, schedule=schedule)
    batch = {"image": images, "label": labels}
    program = step.lower(_shapes(state, mesh, PartitionSpec()), _shapes(batch, mesh, PartitionSpec(AXIS)))
    connect = functools.partial(_training, state=state, batch=batch, mesh=mesh)
  else:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    program = jax.jit(task.forward).lower(variables, jax.ShapeDtypeStruct(images.shape, images.dtype))
    connect = functools.partial(_inference, variables=variables, images=images)
  traced_seconds = time.perf_counter() - began

  def compiled() -> Program:
    began = time.perf_counter()
    executable = program.compile()
    seconds = traced_seconds + time.perf_counter() - began
    return Program(connect(executable), seconds, _memory_gib(executable), executable.as_text())

  return compiled


def _shapes(tree, mesh: Mesh, spec: PartitionSpec):
  """What a program is compiled for: the shapes of a tree of arrays or shapes, and where they are."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)), tree)


def _task(cell: Cell, sizes: Sizes, name: str):
  dtype = {"bfloat16": jnp.bfloat16, "float32": jnp.float32}[cell.dtype]
  fields = {"num_classes": sizes.num_classes, "repeats": sizes.repeats}
  model = ShuffleNetV1(cell.groups, cell.scale, lowering=name, dtype=dtype, **fields)
  task = Classification(Forward(model, MEAN, STD), label_smoothing=RECIPE.label_smoothing)
  return task, *optimizers.sgd(RECIPE, _NUM_STEPS)


def _training(executable, *, state, batch, mesh) -> Callable[[int], None]:
  held = [replicate(random_values(state), mesh)]
  batch = split_batch(batch, mesh)

  def run(steps: int) -> None:
    for _ in range(steps):
      held[0], metrics = executable(held[0], batch)  # the step donates the state
    jax.block_until_ready((held[0], metrics))

  return run


def _inference(executable, *, variables, images) -> Callable[[int], None]:
  variables, images = jax.device_put((random_values(variables), images), jax.devices()[0])

  def run(steps: int) -> None:
    for _ in range(steps):
      logits = executable(variables, images)
    jax.block_until_ready(logits)

  return run


def _memory_gib(executable) -> float | None:
  """Arguments, results and temporaries of a compiled program, where the results take the place of donated arguments."""
  found = executable.memory_analysis()
  if found is None:
    return None
  size = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
  return (size - found.alias_size_in_bytes) / 2**30
