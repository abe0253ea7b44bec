"""The paper's tables of complexity (1, 2, 4, 5, 6 and 8): each row with the count of the network as built here."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import tabulate

from shufflenet_jax.counting.multiply_adds import count_network
from shufflenet_jax.models import build
from shufflenet_jax.models.shufflenet import STAGE2_CHANNELS, stage_channels, stem_channels

COMMON = {"num_classes": 1000, "dtype": "float32"}
TOLERANCE_PERCENT = 3.0


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of one of the paper's tables.

  Attributes:
    table: its number.
    network: its name there.
    paper_mflops: million multiply-adds as printed there.
    fields: a config's `model` section.
    with_fc: whether that table's figure includes the last layer.
    note: the reason if our count differs by more than 3 %.
  """

  table: int
  network: str
  paper_mflops: float
  fields: dict
  with_fc: bool
  note: str = ""


def shufflenet(groups: int, scale: float, **fields) -> dict:
  """A config's `model` section of a ShuffleNet."""
  own = build.own_fields("shufflenet_v1") | {"groups": groups, "scale": scale, "lowering": "reference"}
  return COMMON | {"network": "shufflenet_v1"} | own | fields


def _rows() -> list[Row]:
  rows = []
  table_1 = dict(zip(STAGE2_CHANNELS, (143, 140, 137, 133, 137)))
  for groups, mflops in table_1.items():
    rows.append(Row(1, f"ShuffleNet 1x g={groups}", mflops, shufflenet(groups, 1.0), False))
  for scale, mflops in ((1.0, 140), (0.5, 38), (0.25, 13)):
    for groups in STAGE2_CHANNELS:
      note = f"the heading is nominal: Table 1 has {table_1[groups]}" if scale == 1 else ""
      rows.append(Row(2, f"ShuffleNet {scale:g}x g={groups}", mflops, shufflenet(groups, scale), False, note))
  for mflops, (scale, groups) in {140: (1.0, 8), 38: (0.5, 4), 13: (0.25, 8)}.items():
    for unit in ("vgg_like", "resnet", "xception_like", "resnext"):
      rows.append(Row(4, f"{unit} {mflops}M", mflops, COMMON | {"network": unit, "mflops": float(mflops)}, False))
    rows.append(Row(4, f"ShuffleNet {scale:g}x g={groups}", mflops, shufflenet(groups, scale), False))
  mobilenets = {1.0: 569, 0.75: 325, 0.5: 149, 0.25: 41}
  for scale, mflops in mobilenets.items():
    rows.append(Row(5, f"MobileNet {scale:g}", mflops, COMMON | {"network": "mobilenet_v1", "scale": scale}, True))
  rows += [
    Row(5, "ShuffleNet 2x g=3", 524, shufflenet(3, 2.0), True),
    Row(5, "ShuffleNet 2x + SE g=3", 527, shufflenet(3, 2.0, se=True), True),
    Row(5, "ShuffleNet 1.5x g=3", 292, shufflenet(3, 1.5), True),
    Row(5, "ShuffleNet 1x g=8", 140, shufflenet(8, 1.0), True),
    Row(5, "ShuffleNet 0.5x g=4", 38, shufflenet(4, 0.5), True),
    Row(5, "ShuffleNet 0.5x shallow g=3", 40, shufflenet(3, 0.75, repeats=(2, 4, 2)), True, "SHALLOW"),
    Row(6, "VGG-16", 15300, COMMON | {"network": "vgg16"}, True),
    Row(6, "ShuffleNet 2x g=3", 524, shufflenet(3, 2.0), True),
    Row(
      6,
      "GoogLeNet",
      1500,
      COMMON | {"network": "googlenet"},
      True,
      "GoogLeNet's own round figure (its section 1, '1.5 billion'); the layers of its Table 1 add up to ours",
    ),
    Row(6, "ShuffleNet 1x g=8", 140, shufflenet(8, 1.0), True),
    Row(6, "AlexNet", 720, COMMON | {"network": "alexnet"}, True),
    Row(6, "SqueezeNet", 833, COMMON | {"network": "squeezenet"}, True),
    Row(6, "ShuffleNet 0.5x g=4", 38, shufflenet(4, 0.5), True),
    Row(8, "ShuffleNet 0.5x g=3", 38, shufflenet(3, 0.5), True),
    Row(8, "ShuffleNet 1x g=3", 140, shufflenet(3, 1.0), True),
    Row(8, "ShuffleNet 2x g=3", 524, shufflenet(3, 2.0), True),
    Row(8, "AlexNet", 720, COMMON | {"network": "alexnet"}, True),
    Row(8, "1.0 MobileNet-224", 569, COMMON | {"network": "mobilenet_v1", "scale": 1.0}, True),
  ]
  return rows


def _why(fields: dict, note: str) -> str:
  """The note of a row that differs by more than the tolerance, with a count that explains it if there is one."""
  if note == "SHALLOW":
    narrower = count_network(build.network(fields | {"scale": 0.7}), 224).multiply_adds / 1e6
    return f"the paper gives no width for the shallow network; Stage 2 = 180 here, 168 gives {narrower:.1f}"
  if note or fields["network"] != "shufflenet_v1":
    return note
  groups, scale = fields["groups"], fields["scale"]
  exact, built = [scale * STAGE2_CHANNELS[groups] * c for c in (1, 2, 4)], stage_channels(groups, scale)
  if tuple(exact) == built:
    stem = stem_channels(groups, scale)
    return (
      f"a stem of {stem}, as 12 channels do not divide into {groups} groups; a stem of {stem - groups} gives"
      f" {_million(fields | {'stem': stem - groups}):.1f}"
    )
  narrower = (built[0] - 4 * groups) / STAGE2_CHANNELS[groups]
  return (
    f"{_widths(exact)} rounded up to multiples of {4 * groups}: {_widths(built)}; the next narrower,"
    f" {_widths(stage_channels(groups, narrower))}, gives {_million(fields | {'scale': narrower}):.1f}"
  )


def _million(fields: dict) -> float:
  return count_network(build.network(fields), 224).without_classifier / 1e6


def _widths(channels) -> str:
  return "/".join(f"{c:g}" for c in channels)


def count_tables() -> Iterator[dict]:
  """Counts the network of each row, which takes a minute in total.

  Yields:
    One dict a row: table, network, paper_mflops, mflops (without the last layer, see `NetworkCount`), mflops_with_fc
    (all layers), difference_percent (of whichever of these two the paper's table gives), params, note.
  """
  counted = {}
  for row in _rows():
    key = repr(sorted(row.fields.items()))
    if key not in counted:
      counted[key] = count_network(build.network(row.fields), 224)
    count = counted[key]
    ours = (count.multiply_adds if row.with_fc else count.without_classifier) / 1e6
    difference = 100 * (ours / row.paper_mflops - 1)
    yield (
      {
        "table": row.table,
        "network": row.network,
        "paper_mflops": row.paper_mflops,
        "mflops": count.without_classifier / 1e6,
        "mflops_with_fc": count.multiply_adds / 1e6,
        "difference_percent": round(difference, 2),
        "params": count.parameters,
        "note": _why(row.fields, row.note) if abs(difference) > TOLERANCE_PERCENT else "",
      }
    )


def as_text(rows: Iterable[dict]) -> Iterator[str]:
  """The rows of `count_tables` as text, one table of the paper at a time, with notes below each table."""
  headers = ("network", "paper M", "ours M", "with FC", "diff %", "parameters")
  columns = ("network", "paper_mflops", "mflops", "mflops_with_fc", "difference_percent", "params")
  for table, group in itertools.groupby(rows, key=lambda row: row["table"]):
    group = list(group)
    cells = [[row[column] for column in columns] for row in group]
    yield f"\nTable {table}"
    yield tabulate.tabulate(cells, headers, "simple", floatfmt=("", ",g", ",.2f", ",.2f", ".1f"), intfmt=",")
    yield from (f"  {row['network']}: {row['note']}" for row in group if row["note"])
  yield "\nM: million multiply-adds for one 224x224 image. Differences of Tables 1, 2 and 4 are without the last"
  yield "layer (FC), as Table 1 counts; those of Tables 5, 6 and 8 with it, as Table 5 does. The last layer is the one"
  yield "that outputs the classes: only the third FC of VGG-16 and AlexNet; a convolution, conv10, of SqueezeNet."
