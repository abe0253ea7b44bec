"""The type in which formulations take and return values for each layer."""

from typing import Any, NamedTuple


class PerLayer(NamedTuple):
  """One value for each of a unit's three convolutions (Fig. 2): kernels, batch norms, or statistics of a batch.

  Attributes:
    compress: of the first 1x1 group convolution. Its norm has the channels in their order after the shuffle.
    depthwise: of the 3x3 depthwise convolution.
    expand: of the second 1x1 group convolution.
  """

  compress: Any
  depthwise: Any
  expand: Any
