"""The same step and the same inference in PyTorch: channels-last, autocast, with torch.compile or without."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.gpu import cells, torch_network
from benchmarks.gpu.cells import Cell, Sizes
from benchmarks.gpu.in_jax import MEAN, RECIPE, STD, Program, pictures


def prepare_process() -> None:
  """Chooses convolutions by measuring them, and multiplies float32 in TF32, as XLA does by default."""
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision("high")


def release_memory() -> None:
  """Forgets compiled functions, and gives memory that nothing refers to any more back to the device."""
  torch.compiler.reset()
  if torch.cuda.is_available():
    torch.cuda.empty_cache()


def program(cell: Cell, sizes: Sizes, name: str) -> Program:
  """Compiles by calling: the first steps have been run when this returns.

  Args:
    cell, sizes: what to run.
    name: one of `cells.TORCH`.
  """
  cuda = torch.cuda.is_available()
  device = torch.device("cuda" if cuda else "cpu")
  began = time.perf_counter()
  step = (_training if cell.mode == "train" else _inference)(cell, sizes, device, name == cells.COMPILED)

  def run(steps: int) -> None:
    for _ in range(steps):
      step()
    if cuda:
      torch.cuda.synchronize()

  run(2)
  seconds = time.perf_counter() - began
  if not cuda:
    return Program(run, seconds, None)
  torch.cuda.reset_peak_memory_stats()  # the first steps took more, to choose convolutions
  run(1)
  return Program(run, seconds, torch.cuda.max_memory_allocated() / 2**30)


def _network(cell: Cell, sizes: Sizes, device: torch.device, train: bool) -> torch.nn.Module:
  net = torch_network.network(cell.groups, cell.scale, sizes.repeats, sizes.num_classes)
  return net.to(device, memory_format=torch.channels_last).train(train)


def _logits(net, cell: Cell, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
  mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))

  def logits(images):
    with torch.autocast(device.type, torch.bfloat16, enabled=cell.dtype == "bfloat16"):
      return net((images.float() - mean) / std).float()

  return logits


def _batch(cell: Cell, sizes: Sizes, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
  images, labels = map(torch.from_numpy, pictures(cell, sizes))
  images = images.permute(0, 3, 1, 2)  # (n, h, w, 3) -> (n, 3, h, w), still stored as NHWC: channels-last
  return images.to(device), labels.long().to(device)


def _compiled(function: Callable, device: torch.device) -> Callable:
  # On the CPU, in a rehearsal, the graph is traced and not compiled: that would take minutes and a C++ compiler.
  return torch.compile(function, dynamic=False, backend="inductor" if device.type == "cuda" else "eager")


def _training(cell: Cell, sizes: Sizes, device: torch.device, compiled: bool) -> Callable[[], None]:
  net = _network(cell, sizes, device, train=True)
  images, labels = _batch(cell, sizes, device)
  logits = _logits(net, cell, device)
  kernels = [p for p in net.parameters() if p.ndim > 1]
  others = [p for p in net.parameters() if p.ndim <= 1]
  groups = [{"params": kernels, "weight_decay": RECIPE.weight_decay}, {"params": others, "weight_decay": 0.0}]
  optimizer = torch.optim.SGD(groups, lr=RECIPE.learning_rate, momentum=RECIPE.momentum, fused=True)

  def loss(images, labels):
    return F.cross_entropy(logits(images), labels, label_smoothing=RECIPE.label_smoothing)

  loss = _compiled(loss, device) if compiled else loss

  def step() -> None:
    optimizer.zero_grad(set_to_none=True)
    loss(images, labels).backward()
    optimizer.step()

  return step


def _inference(cell: Cell, sizes: Sizes, device: torch.device, compiled: bool) -> Callable[[], None]:
  net = _network(cell, sizes, device, train=False)
  images, _ = _batch(cell, sizes, device)
  logits = _logits(net, cell, device)
  logits = _compiled(logits, device) if compiled else logits

  def step() -> None:
    with torch.inference_mode():
      logits(images)

  return step
