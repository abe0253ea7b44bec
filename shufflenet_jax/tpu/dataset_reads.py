"""What a run reads from the bucket: every epoch, or once if the dataset is copied into the hosts' memory first."""

import dataclasses

from shufflenet_jax.tpu import slices

# What one host reads from a bucket, in GB/s. An assumption: it has not been measured on a TPU VM. Once it is known,
# give it as --bucket_gb_per_second; the last line of `data.stage` has it.
BUCKET_GB_PER_SECOND = 0.5

# /dev/shm holds half of a machine's memory unless it is mounted otherwise (Linux, Documentation/filesystems/tmpfs), and
# so does the volume that launch/gke asks for. The other half is left to training.
MEMORY_SHARE = 0.5

# ILSVRC 2012's archives of training and validation pictures, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of
# image-net.org, in bytes. The prepared dataset holds the same files.
_IMAGENET_BYTES, _IMAGENET_IMAGES = 147_897_477_120 + 6_744_924_160, 1_281_167 + 50_000


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The files of a dataset that a config needs.

  Attributes:
    size: of all files, bytes.
    images: in all files.
  """

  size: float
  images: int


@dataclasses.dataclass
class Reads:
  """What a run on one slice reads.

  Attributes:
    dataset_bytes: to be copied to each host.
    memory_bytes: of a host's file system in memory.
    fits: whether the dataset fits there.
    bucket_gb_per_second: that one host reads, assumed.
    bytes_per_second: that all hosts together read throughout the run, so that the bucket does not slow it down.
    hours_from_bucket: of the whole run if it reads the bucket in every epoch.
    copy_minutes: of copying the dataset, on all hosts at once.
    hours_staged: of the whole run if it copies the dataset first, with one copy; None if it does not fit.
  """

  dataset_bytes: float
  memory_bytes: float
  fits: bool
  bucket_gb_per_second: float
  bytes_per_second: float
  hours_from_bucket: float
  copy_minutes: float
  hours_staged: float | None


def dataset_of(config, gigabytes: float | None = None, images: int | None = None) -> Dataset | None:
  """The dataset's size: as given; that of the files in data.data_dir; or that of ImageNet's archives.

  Args:
    config: whose data section names the dataset.
    gigabytes: of the dataset, if known.
    images: in the dataset, if known.

  Returns:
    None if the size is not known.

  Raises:
    UserError: data.data_dir does not hold the dataset.
  """
  if gigabytes and images:
    return Dataset(gigabytes * 1e9, images)
  if config.data.data_dir and config.data.name not in ("folder", "arrays"):
    from shufflenet_jax.data import needed_files

    needed = needed_files.of_config(config)
    return Dataset(needed.size, needed.num_examples)
  is_imagenet = config.data.name.partition(":")[0] == "imagenet2012"
  return Dataset(_IMAGENET_BYTES, _IMAGENET_IMAGES) if is_imagenet else None


def of_plan(plan, dataset: Dataset, bucket_gb_per_second: float, num_train_steps: int) -> Reads:
  """What a run reads; `plan` is a `planning.Plan` with a compiled step."""
  per_host = slices.from_topology(plan.topology).memory_gb_per_host
  memory, rate = per_host * 1e9 * MEMORY_SHARE, bucket_gb_per_second * 1e9
  read = num_train_steps * plan.batch * dataset.size / dataset.images
  fits, copy_hours = dataset.size <= memory, dataset.size / rate / 3600
  return Reads(
    dataset_bytes=dataset.size,
    memory_bytes=memory,
    fits=fits,
    bucket_gb_per_second=bucket_gb_per_second,
    bytes_per_second=read / plan.hours / 3600,
    hours_from_bucket=max(plan.hours, read / plan.hosts / rate / 3600),
    copy_minutes=60 * copy_hours,
    hours_staged=plan.hours + copy_hours if fits else None,
  )


def describe(reads: Reads, hosts: int) -> list[tuple[str, str]]:
  """(name, words) of the lines of a report."""
  size, memory, rate = reads.dataset_bytes / 1e9, reads.memory_bytes / 1e9, reads.bucket_gb_per_second
  total = reads.bytes_per_second / 1e9
  rows = [
    (
      "dataset",
      f"{size:.1f} GB, {'fits' if reads.fits else 'does not fit'} in {memory:.0f} GB, half of a host's memory",
    ),
    ("bucket", f"must give {total:.2f} GB/s throughout, {total / hosts:.2f} to each host, if read in every epoch"),
    ("", f"at {rate:g} GB/s to each host (assumed): {reads.hours_from_bucket:.3g} h"),
  ]
  if reads.fits:
    staged = f"{reads.hours_staged:.3g} h, of which the copy takes {reads.copy_minutes:.1f} min"
    rows.append(("--stage_data", f"reads {size:.1f} GB to each host, once; at {rate:g} GB/s: {staged}"))
  else:
    remedy = "other hosts, or pictures resized by data.prepare --short_side=256"
    rows.append(("--stage_data", f"is not possible here: {remedy}"))
  return rows
