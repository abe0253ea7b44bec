"""Parameters and multiply-adds of a detector: its body, its region proposal network and its head apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import tabulate

from shufflenet_jax.counting.multiply_adds import count_multiply_adds, count_parameters


class DetectorCount(NamedTuple):
  """The parameters and multiply-adds of a detector, for one picture.

  Attributes:
    rows: "body", "rpn" and "head" -> (parameters, multiply-adds). The body is the network up to the map of stride 16;
      the head is its last stage and the two dense layers, on all regions of inference.
    parameters: the total.
    multiply_adds: the total.
    resampling: multiply-adds of RoIAlign's matrix products, which are in no row and not in the total: the usual
      figures, such as those of MobileNet's paper, do not count interpolation.
  """

  rows: dict[str, tuple[int, int]]
  parameters: int
  multiply_adds: int
  resampling: int


def count_detector(model, height: int, width: int) -> DetectorCount:
  """Counts a `models.faster_rcnn.FasterRCNN` on one RGB picture that fills a canvas of height x width.

  Nothing is computed. The number of regions is the module's `test_proposals`.
  """
  image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  whole = jax.eval_shape(model.init, key, image)["params"]
  without_head = jax.eval_shape(lambda *args: model.init(*args, method="propose"), key, image)["params"]
  total, rpn = count_parameters(whole), count_parameters(whole["rpn"])
  body = count_parameters(without_head) - rpn
  parameters = {"body": body, "rpn": rpn, "head": total - body - rpn}

  multiply_adds = dict.fromkeys((*parameters, "roi_align"), 0)
  for scope, count in count_multiply_adds(model.init, key, image).items():
    # The innermost of these names: `roi_align` is inside `head`.
    part = next(name for name in reversed(scope.split("/")) if name in multiply_adds)
    multiply_adds[part] += count
  resampling = multiply_adds.pop("roi_align")
  rows = {name: (parameters[name], multiply_adds[name]) for name in parameters}
  return DetectorCount(rows, total, sum(multiply_adds.values()), resampling)


def overview(counted: DetectorCount, height: int, width: int, regions: int) -> str:
  """A table of the parts of a detector."""
  rows = [(name, *counts) for name, counts in counted.rows.items()]
  rows.append(("total", counted.parameters, counted.multiply_adds))
  table = tabulate.tabulate(rows, ("part", "parameters", "multiply-adds"), "plain", intfmt=",")
  return (
    f"{table}  for one {height}x{width} picture and {regions} regions;"
    f" resampling the regions adds {counted.resampling:,}"
  )
