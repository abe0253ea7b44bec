"""Parameters and multiply-adds of a detector, separately for its body, its region proposal network and its head."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from shufflenet_jax.counting.multiply_adds import count_multiply_adds, count_parameters, table


class DetectorCount(NamedTuple):
  """The parameters and multiply-adds of a detector, for one picture.

  Attributes:
    rows: "body", "rpn" and "head" -> (parameters, multiply-adds). The body is the network up to the map of stride 16;
      the head is its last stage and the two dense layers, on all regions of inference.
    parameters: the total.
    multiply_adds: the total.
    resampling: multiply-adds of RoIAlign's matrix products, which are in no row and not in the total: the usual
      figures, such as those of MobileNet's paper, do not count interpolation.
    regions: how many the head computes.
  """

  rows: dict[str, tuple[int, int]]
  parameters: int
  multiply_adds: int
  resampling: int
  regions: int

  def overview(self, image_size: int) -> str:
    """A table of the detector's parts."""
    return (
      f"{table(self, 'part')}  for one {image_size}x{image_size} image and {self.regions} regions;"
      f" cutting them out adds {self.resampling:,}"
    )


def count_detector(model, image_size: int) -> DetectorCount:
  """Counts a `models.faster_rcnn.FasterRCNN` on one RGB picture that fills a square canvas.

  Nothing is computed. The number of regions is the module's `test_proposals`.
  """
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
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
  return DetectorCount(rows, total, sum(multiply_adds.values()), resampling, model.test_proposals)
