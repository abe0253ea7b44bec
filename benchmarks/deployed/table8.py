"""Table 8 of the paper: milliseconds of one inference on one thread of a Snapdragon 820."""

import dataclasses

# Height and width of the pictures, as the paper names them.
SIZES = {"224x224": (224, 224), "480x640": (480, 640), "720x1280": (720, 1280)}


@dataclasses.dataclass(frozen=True)
class Row:
  """A network of Table 8, or one to compare these with.

  Attributes:
    title: its name in reports.
    arguments: of configs/imagenet.py.
    paper_ms: by size, as in `SIZES`; empty if the paper has no such row.
    response_norm: whether local response normalisation is computed, in a network that has it.
  """

  title: str
  arguments: str
  paper_ms: dict[str, float]
  response_norm: bool = True


def _ms(*by_size: float) -> dict[str, float]:
  return dict(zip(SIZES, by_size))


# Speedups are over this network. The paper does not say whether its AlexNet normalises responses. Later versions of
# AlexNet do not, and without it AlexNet is faster, so the speedups are the smaller ones.
BASELINE = "alexnet"
NETWORKS = {
  "0.5x": Row("ShuffleNet 0.5x g=3", "scale=0.5,groups=3", _ms(15.2, 87.4, 260.1)),
  "1x": Row("ShuffleNet 1x g=3", "scale=1.0,groups=3", _ms(37.8, 222.2, 684.5)),
  "2x": Row("ShuffleNet 2x g=3", "scale=2.0,groups=3", _ms(108.8, 617.0, 1857.6)),
  "mobilenet": Row("1.0 MobileNet-224", "network=mobilenet_v1", _ms(110.0, 612.0, 1879.2)),
  "alexnet": Row("AlexNet", "network=alexnet", _ms(184.0, 1156.7, 3633.9), response_norm=False),
  "alexnet-lrn": Row("AlexNet with response normalisation", "network=alexnet", {}),
}
