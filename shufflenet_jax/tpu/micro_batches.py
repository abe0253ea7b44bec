"""Whether a training step is faster in micro-batches: the activations of fewer images stay in a chip's fast memory."""

import dataclasses

LANES = 128  # of the vector unit, which the images of a batch fill


@dataclasses.dataclass(frozen=True)
class MicroBatches:
  """A config's step with another number of micro-batches.

  Attributes:
    accumulate_steps: micro-batches per step.
    images: of a micro-batch, on each chip.
    images_before: that the config's own step computes at once.
    cycles: of a whole step, estimated by the compiler.
    hbm_bytes: memory that the step needs on a chip, according to the compiler.
  """

  accumulate_steps: int
  images: int
  images_before: int
  cycles: int
  hbm_bytes: int


def steps_to_try(config, chips: int) -> int | None:
  """The `accumulate_steps` that makes micro-batches of `LANES` images.

  None if the config's own are not larger or do not divide into such, if it fixes the images that share batch
  statistics, or if its task is not classification (the regions of a detector's images fill the lanes).
  """
  from shufflenet_jax import tasks

  images, rest = divmod(config.batch_size, chips)
  if config.batch_norm_group or rest or images % LANES or tasks.name_of(config) != "classification":
    return None
  steps = images // LANES
  return steps if steps > config.accumulate_steps else None


def describe(micro: MicroBatches, cycles: int | None) -> str:
  """What the micro-batches change; `cycles` are those of the config's own step, None if it does not fit."""
  name, million = f"config.accumulate_steps={micro.accumulate_steps}", f"{micro.cycles / 1e6:.2f}M cycles (estimate)"
  if cycles is None:
    gain = f"fits: {micro.hbm_bytes / 2**30:.2f} GiB, {million}"
  elif micro.cycles >= cycles:
    return f"{name} is not faster: {million}"
  else:
    gain = f"is {cycles / micro.cycles:.2f} times as fast: {million}"
  return f"{name} {gain}; batch statistics are then those of {micro.images} images, not {micro.images_before}"
