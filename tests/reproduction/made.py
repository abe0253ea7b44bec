"""Results that nobody trained."""

from configs import tiny_imagenet
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.reproduction.results import Result


def result(cell: str, seed: int, top1: float, **changes) -> Result:
  config = checkpoint.to_json(tiny_imagenet.get_config())
  values = {
    "top5": 0.6, "loss": 2.5, "multiply_adds": 1_000_000, "steps": 16_000, "images": 1_024_000, "seconds": 640.0,
    "hardware": "2 cores", "versions": {"jax": "0.10.2"}, "commit": "abc", "config": config,
  }  # fmt: skip
  return Result(cell=cell, seed=seed, top1=top1, **(values | changes))
