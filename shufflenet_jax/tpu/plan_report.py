"""Prints plans as text and draws them as a plot."""

import pathlib

import numpy as np

from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import dataset_reads, micro_batches

ACCURACY_NOTE = (
  "Times are estimates: the compiler's cycles at the given clock, without waiting for input or other chips, and\n"
  "without evaluation. Their accuracy is known from one case, of another network and generation: ResNet-50 on v3,\n"
  "932 images/s per core, against 938 in a public MLPerf run. No ShuffleNet run on a TPU has been measured."
)


def text(plans, num_train_steps: int) -> str:
  """One plan as a list of figures, several as a table; warnings follow."""
  body = _figures(plans[0], num_train_steps) if len(plans) == 1 else _table(plans, num_train_steps)
  warnings = [f"warning: {p.topology}: {w}" for p in plans for w in p.warnings]
  return "\n".join([body, ACCURACY_NOTE, *warnings])


def _figures(p, num_train_steps: int) -> str:
  gib = 2**30
  rows = [("slice", f"{p.topology} ({p.accelerator_type}): {p.chips} chips, {p.hosts} hosts (VMs)")]
  rows.append(("batch", f"{p.batch}, {p.batch_per_chip:g} per chip"))
  if p.hbm_bytes:
    free = (p.hbm_limit - p.hbm_bytes) / gib
    left = f"{free:.2f} free" if free >= 0 else f"{-free:.2f} too much"
    rows.append(("memory", f"{p.hbm_bytes / gib:.2f} of {p.hbm_limit / gib:g} GiB per chip, {left} (compiler)"))
  if p.largest_batch_per_chip:
    largest = p.largest_batch_per_chip
    rows.append(("largest batch", f"{largest * p.chips}, {largest} per chip ({p.largest_batch_from})"))
  if p.cycles:
    rows += [
      ("step", f"{p.step_ms:.2f} ms: {p.cycles / 1e6:.2f}M cycles at {p.clock_ghz:g} GHz (estimate)"),
      ("images/s", f"{p.images_per_second:,.0f} (estimate)"),
      ("whole config", f"{p.hours:.3g} h, {p.chip_hours:.3g} chip-hours for {num_train_steps:,} steps (estimate)"),
      ("interconnect", f"{p.interconnect_bytes / 1e6:.1f} MB sent by each chip in a step"),
      ("each host", f"must supply {p.images_per_second_per_host:,.0f} images/s"),
      ("", f"can supply {p.host_images_per_second:,.0f}{_resized(p, ', pre-resized {:,.0f}', '')}"),
    ]
  if p.micro_batches:
    rows.append(("micro-batches", micro_batches.describe(p.micro_batches, p.cycles)))
  if p.reads:
    rows += dataset_reads.describe(p.reads, p.hosts)
  return "\n".join(f"{name:15}{words}" for name, words in rows)


def _resized(plan, form: str, absent: str) -> str:
  rate = plan.host_images_per_second_resized
  return absent if rate is None else form.format(rate)


def _table(plans, num_train_steps: int) -> str:
  columns = [
    ("topology", lambda p: p.topology),
    ("chips", lambda p: f"{p.chips}"),
    ("hosts", lambda p: f"{p.hosts}"),
    ("per chip", lambda p: f"{p.batch_per_chip:g}"),
    ("GiB", lambda p: f"{p.hbm_bytes / 2**30:.2f}" if p.hbm_bytes else "-"),
    ("of", lambda p: f"{p.hbm_limit / 2**30:g}"),
    ("largest", lambda p: f"{p.largest_batch_per_chip or '-'}"),
    ("GHz", lambda p: f"{p.clock_ghz:g}"),
    ("step ms", lambda p: f"{p.step_ms:.2f}" if p.cycles else "-"),
    ("images/s", lambda p: f"{p.images_per_second:,.0f}" if p.cycles else "-"),
    ("hours", lambda p: f"{p.hours:.1f}" + ("*" if p.input_bound else " ") if p.cycles else "-"),
    ("chip-hours", lambda p: f"{p.chip_hours:,.0f}" if p.cycles else "-"),
    ("MB sent", lambda p: f"{p.interconnect_bytes / 1e6:.1f}" if p.cycles else "-"),
    ("host needs", lambda p: f"{p.images_per_second_per_host:,.0f}" if p.cycles else "-"),
    ("supplies", lambda p: f"{p.host_images_per_second:,.0f}"),
    ("resized", lambda p: _resized(p, "{:,.0f}", "-")),
  ]
  if any(p.reads for p in plans):
    columns += [
      ("GB/s", lambda p: f"{p.reads.bytes_per_second / 1e9:.1f}" if p.reads else "-"),
      ("h bucket", lambda p: f"{p.reads.hours_from_bucket:.1f}" if p.reads else "-"),
      ("h staged", lambda p: f"{p.reads.hours_staged:.1f}" if p.reads and p.reads.fits else "-"),
    ]
  rows = [[name for name, _ in columns]] + [[cell(p) for _, cell in columns] for p in plans]
  widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
  lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
  how = sorted({p.largest_batch_from for p in plans if p.largest_batch_from})
  lines.append(f"batch {plans[0].batch}, {num_train_steps:,} steps; GiB: memory per chip, by the compiler;")
  lines.append(f"largest: images per chip that fit ({'; '.join(how) or 'none found'}); *: limited by the hosts' input")
  lines += [f"{p.topology}: {micro_batches.describe(p.micro_batches, p.cycles)}" for p in plans if p.micro_batches]
  if read := [p.reads for p in plans if p.reads]:
    size, rate = read[0].dataset_bytes / 1e9, read[0].bucket_gb_per_second
    lines.append(
      f"GB/s: what the bucket must give if the dataset of {size:.1f} GB is read in every epoch; h bucket: hours"
    )
    lines.append(f"if it gives {rate:g} GB/s to each host (assumed); h staged: with --stage_data, -: does not fit")
  return "\n".join(lines)


def check_writable(path: str) -> None:
  """Raises a UserError unless a plot can be written to the path; called before minutes of compiling."""
  folder = pathlib.Path(path).parent
  if not path.endswith(".png") or not folder.is_dir():
    raise UserError(f"--plot={path} must be a .png in a folder that exists")


def draw(plans, config, path: str) -> None:
  """Draws hours against chips, one line per generation, and shades where a generation's hosts cannot feed it."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt
  from matplotlib import ticker

  figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
  done = [p for p in plans if p.cycles]
  counts = {p.chips for p in done} or {1}
  chips = np.array([min(counts) / 2, *sorted(counts), 2 * max(counts)])
  images = config.num_train_steps * config.batch_size
  for i, generation in enumerate(sorted({p.topology.partition(":")[0] for p in done})):
    own = sorted((p for p in done if p.topology.startswith(f"{generation}:")), key=lambda p: p.chips)
    colour = f"C{i}"
    axes.plot([p.chips for p in own], [p.step_hours for p in own], "o-", color=colour, label=f"{generation}, estimate")
    for p in own:
      if p.input_bound:
        axes.plot(p.chips, p.hours, "x", color=colour, markersize=9)
    # Small slices differ in their chips per host: the edge of the shaded area is that of the largest slice drawn.
    fed = images / (own[-1].host_images_per_second * np.maximum(chips * own[-1].hosts / own[-1].chips, 1)) / 3600
    axes.fill_between(chips, fed, fed / 1e3, color=colour, alpha=0.12, label=f"{generation}, input-bound")
  lowest = min((p.step_hours for p in done), default=1)
  axes.set(xscale="log", yscale="log", xlabel="chips", ylabel="hours for the whole config", ylim=(lowest / 3, None))
  axes.set_xticks(chips, [f"{c:g}" for c in chips])
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda hours, _: f"{hours:g}"))
  axes.yaxis.set_minor_locator(ticker.NullLocator())
  axes.set_title(
    f"{config.model.network}, batch {config.batch_size}, {config.num_train_steps:,} steps (x: input-bound)"
  )
  if done:
    axes.legend(fontsize="small")
  figure.savefig(path, dpi=120)
  plt.close(figure)
