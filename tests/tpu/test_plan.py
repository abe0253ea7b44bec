"""Plans of a run: the arithmetic, the warnings, and one real compilation."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from configs import coco, imagenet
from shufflenet_jax.data import needed_files
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import dataset_reads, hlo, micro_batches, plan_report, planning
from shufflenet_jax.tpu.compile import OutOfMemory, Program
from tests.launch.launcher import ROOT

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: jax[tpu] has it for Linux x86-64"
)
ALL_REDUCE = hlo.Instruction("r", "all-reduce", (("f32", (1000, 3)), ("bf16", (8,))), "", 0, False)


def program(cycles, hbm_bytes=2**30):
  work = hlo.Instruction("f", "fusion", (("bf16", (8,)),), "", cycles, False)
  return Program("", [work, ALL_REDUCE], 128, hbm_bytes)


def compiled(topology, batch, cycles=15_000_000, **assumed):
  config = imagenet.get_config(f"batch={batch}")
  made = planning.before_compiling(config, topology, **assumed)
  planning.add_compiled_step(made, program(cycles), config.num_train_steps)
  return made


def test_arithmetic():
  made = compiled("v5e:4x4", 2048)
  assert (made.accelerator_type, made.chips, made.hosts, made.batch_per_chip) == ("v5litepod-16", 16, 4, 128)
  assert made.step_ms == pytest.approx(10)  # 15M cycles at 1.5 GHz
  assert made.images_per_second == pytest.approx(204_800)
  assert made.images_per_second_per_host == pytest.approx(51_200)
  assert made.hours == made.step_hours == pytest.approx(150_000 * 0.010 / 3600)
  assert made.chip_hours == pytest.approx(16 * made.hours)
  assert made.interconnect_bytes == round(2 * 15 / 16 * (3000 * 4 + 8 * 2))
  assert made.host_images_per_second == planning.IMAGES_PER_SECOND_PER_CORE["labels"] * 112
  assert made.warnings == []


def test_hosts_supply_fewer_pictures_with_boxes():
  made = planning.before_compiling(coco.get_config("size=300"), "v5e:2x4")
  assert made.host_images_per_second == planning.IMAGES_PER_SECOND_PER_CORE["objects"] * 224
  assert made.host_images_per_second < 20_000
  planning.add_compiled_step(made, program(5_000_000), 1000)
  (warning,) = made.warnings  # shrinking pictures beforehand is no remedy for boxes
  assert "input-bound" in warning and "resized" not in warning and "more vCPUs per chip than 28" in warning
  assert "resized" not in plan_report.text([made], 1000)


def test_the_hosts_limit_input_bound_slices():
  made = compiled("v5e:4x4", 2048, images_per_second_per_core=100)
  assert made.input_bound
  assert made.hours == pytest.approx(150_000 * 2048 / (4 * 112 * 100) / 3600)
  assert made.step_hours < made.hours
  (warning,) = made.warnings
  assert "each host must supply 51,200 images/s and can supply 11,200" in warning
  assert f"would reach {11_200 * planning.PRE_RESIZED_SPEEDUP['labels']:,.0f}" in warning
  (warning,) = compiled("v5e:4x4", 2048, images_per_second_per_core=400).warnings
  assert "resized beforehand" in warning and warning.endswith("would suffice")


@pytest.mark.parametrize(
  ("topology", "batch", "accumulate", "words"),
  [
    ("v5e:16x16", 1024, 1, "4 images per chip are not a multiple of 128, so lanes stay empty: batch=32768"),
    ("v5e:4x4", 2048, 2, "64 images per chip are not a multiple of 128, so lanes stay empty: batch=4096"),
    ("v5e:16x16", 128, 1, "batch_size=128 is too small for 256 chips: fewer chips, or batch=256"),
    ("v5e:4x4", 1000, 1, "batch_size=1000 is not a multiple of 16: 992 or 1008 is"),
    ("v5e:16x16", 32768, 1, "above 8192"),
    ("v5e:1x2", 256, 1, "no accelerator type of this shape; the nearest is v5e:1x1"),
  ],
)
def test_warnings_name_a_remedy(topology, batch, accumulate, words):
  config = imagenet.get_config(f"batch={batch}")
  config.accumulate_steps = accumulate
  (warning,) = planning.before_compiling(config, topology).warnings
  assert words in warning


@needs_libtpu
def test_a_batch_that_no_slice_can_train_is_an_error():
  command = [sys.executable, "-m", "shufflenet_jax.tpu.plan", "--config=configs/imagenet.py:batch=1020"]
  done = subprocess.run([*command, "--topology=v5e:2x4"], capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 2
  assert "batch_size=1020 is not a multiple of 8: 1016 or 1024 is" in done.stdout
  assert "compiled" not in done.stderr


def test_largest_batch_is_extrapolated_through_one_or_two_points():
  gib = 2**30
  two = [compiled("v5e:2x2", 1024), compiled("v5e:4x4", 1024)]
  two[0].hbm_bytes, two[1].hbm_bytes = int(1.5 * gib), int(0.75 * gib)  # 0.5 GiB and 1/256 GiB an image
  planning.largest_batches(two, 1)
  assert [p.largest_batch_per_chip for p in two] == [3840, 3840]  # 15.25 GiB * 256 is 3904
  assert two[0].largest_batch_from == "extrapolated from 64 and 256 per chip"
  one = [compiled("v6e:2x2", 1024)]
  one[0].hbm_bytes = 2 * gib
  planning.largest_batches(one, 1)
  assert one[0].largest_batch_per_chip == 3968  # 31.25 GiB * 128 is 4000
  assert one[0].largest_batch_from == "extrapolated from 256 per chip"


# Memory of a VM: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
@pytest.mark.parametrize(
  ("topology", "gigabytes"),
  [("v4:2x2x2", 407), ("v5e:1x1", 48), ("v5e:4x4", 192), ("v5e:2x4", 384), ("v5p:2x2x1", 448), ("v6e:4x4", 720)],
)
def test_half_of_a_hosts_memory_can_hold_the_dataset(topology, gigabytes):
  made = compiled(topology, 2048)
  for size, fits in ((gigabytes / 2, True), (gigabytes / 2 + 1, False)):
    reads = dataset_reads.of_plan(made, dataset_reads.Dataset(size * 1e9, 1000), 1, 150_000)
    assert reads.fits == fits
    assert (reads.hours_staged is not None) == fits
    lines = dict(dataset_reads.describe(reads, made.hosts))
    assert f"{'fits' if fits else 'does not fit'} in {gigabytes / 2:.0f} GB" in lines["dataset"]
    assert ("is not possible here" in lines["--stage_data"]) != fits


def test_reading_in_every_epoch_or_once():
  made = compiled("v5e:4x4", 2048)  # 10 ms for a step on 4 hosts
  reads = dataset_reads.of_plan(made, dataset_reads.Dataset(64e9, 1_280_000), 0.5, 150_000)  # 50 kB for an image
  assert reads.bytes_per_second == pytest.approx(204_800 * 50e3)  # images/s
  # Each host reads a quarter of the images: 3.84 TB at 0.5 GB/s.
  assert reads.hours_from_bucket == pytest.approx(150_000 * 2048 * 50e3 / 4 / 0.5e9 / 3600)
  assert reads.copy_minutes == pytest.approx(64 / 0.5 / 60)
  assert reads.hours_staged == pytest.approx(made.hours + 64 / 0.5 / 3600)
  fast = dataset_reads.of_plan(made, dataset_reads.Dataset(64e9, 1_280_000), 100, 150_000)
  assert fast.hours_from_bucket == made.hours  # the chips limit the rate


def test_the_size_of_the_dataset_is_given_known_or_measured(config):
  imagenet_config = imagenet.get_config()
  known = dataset_reads.dataset_of(imagenet_config)
  assert known.size / known.images == pytest.approx(116e3, rel=0.01)  # full-size pictures
  assert dataset_reads.dataset_of(imagenet_config, 65, 1000) == dataset_reads.Dataset(65e9, 1000)
  assert dataset_reads.dataset_of(config) == dataset_reads.Dataset(needed_files.of_config(config).size, 1797)
  config.data.data_dir = ""
  assert dataset_reads.dataset_of(config) is None
  imagenet_config.data.data_dir = "absent"
  with pytest.raises(UserError, match="dataset 'imagenet2012' is not in "):
    dataset_reads.dataset_of(imagenet_config)


@pytest.fixture
def compiler(monkeypatch):
  """Replaces the compiler by one whose programs need 1 GiB, and 16 MiB per image."""
  calls = []

  def lower_step(model, config, devices, mode):
    return len(devices), config.batch_size, mode

  def compile_lowered(step):
    calls.append(step)
    used = 2**30 + step[1] // step[0] * 2**24
    if used > 2**34:
      raise OutOfMemory(used, 2**34)
    return program(15_000_000, used)

  monkeypatch.setattr("shufflenet_jax.tpu.compile.lower_step", lower_step)
  monkeypatch.setattr("shufflenet_jax.tpu.compile.compile_lowered", compile_lowered)
  monkeypatch.setattr(
    "shufflenet_jax.tpu.topology.devices", lambda name: [None] * planning.slices.from_topology(name).chips
  )
  return calls


def quietly(text):
  del text


def test_verifying_compiles_the_largest_batch(compiler):
  (made,) = planning.make_plans(imagenet.get_config("batch=1024"), ["v5e:2x2"], 979, verify=True, log=quietly)
  # 960 would fit. 5 GiB for 256 images, extrapolated through the origin, gives 819; the multiple of 128 below is 768.
  assert (made.largest_batch_per_chip, made.largest_batch_from) == (768, "compiled")
  assert compiler == [(4, 1024, "train"), (4, 3072, "train")]


@pytest.mark.parametrize(
  ("cycles", "words"),
  [
    (14_000_000, "is 1.07 times as fast: 14.00M cycles (estimate); batch statistics are then those of 128 images, not"),
    (15_000_000, "is not faster: 15.00M cycles (estimate)"),
  ],
)
def test_micro_batches_that_fill_the_lanes_are_compared(compiler, monkeypatch, cycles, words):
  def lower_step(model, config, devices, mode):
    return config.batch_size, config.accumulate_steps

  monkeypatch.setattr("shufflenet_jax.tpu.compile.lower_step", lower_step)
  monkeypatch.setattr(
    "shufflenet_jax.tpu.compile.compile_lowered", lambda step: program({1: 15_000_000, 4: cycles}[step[1]])
  )
  config = imagenet.get_config("batch=2048")
  made = planning.make_plans(config, ["v5e:2x2", "v5e:4x4"], 979, False, quietly, compare_micro_batches=True)
  assert made[0].micro_batches.accumulate_steps == 4 and made[1].micro_batches is None
  assert f"micro-batches  config.accumulate_steps=4 {words}" in plan_report.text(made[:1], 1000)
  assert f"v5e:2x2: config.accumulate_steps=4 {words}" in plan_report.text(made, 1000)
  config.batch_norm_group = 512  # the images that share statistics are fixed
  (made,) = planning.make_plans(config, ["v5e:2x2"], 979, False, quietly, compare_micro_batches=True)
  assert made.micro_batches is None


def test_micro_batches_can_make_a_batch_fit(compiler):
  """8,192 images on four chips need 33 GiB in the compiler's stand-in, which counts images per chip and not at once."""
  (made,) = planning.make_plans(
    imagenet.get_config("batch=8192"), ["v5e:2x2"], 979, False, quietly, compare_micro_batches=True
  )
  assert made.cycles is None and made.micro_batches is None
  micro = micro_batches.MicroBatches(16, 128, 2048, 240_000_000, 2**31)
  assert micro_batches.describe(micro, None).startswith(
    "config.accumulate_steps=16 fits: 2.00 GiB, 240.00M cycles (est"
  )


def test_a_report_compares_the_bucket_with_a_copy(compiler):
  config, dataset = imagenet.get_config("batch=1024"), dataset_reads.Dataset(100e9, 1_000_000)
  options = {"log": quietly, "dataset": dataset, "bucket_gb_per_second": 1}
  made = planning.make_plans(config, ["v5e:2x2", "v6e:2x2"], 979, False, **options)
  first, second = plan_report.text(made[:1], 1000), plan_report.text(made[1:], 1000)
  assert "100.0 GB, does not fit in 96 GB" in first and "--stage_data   is not possible here" in first
  assert (
    "100.0 GB, fits in 360 GB" in second and "--stage_data   reads 100.0 GB to each host, once; at 1 GB/s" in second
  )
  rows = {line.split()[0]: line.split() for line in plan_report.text(made, 1000).splitlines() if line[:1] == "v"}
  assert rows["v5e:2x2"][-1] == "-" and float(rows["v6e:2x2"][-1]) == pytest.approx(
    made[1].reads.hours_staged, abs=0.05
  )
  assert float(rows["v5e:2x2"][-2]) == pytest.approx(made[0].reads.hours_from_bucket, abs=0.05)


def test_plans_that_do_not_fit_or_divide_have_no_times(compiler):
  made = planning.make_plans(
    imagenet.get_config("batch=8192"), ["v5e:2x2", "v5e:16x16", "v5e:8x8"], 979, False, log=quietly
  )
  assert [p.cycles is None for p in made] == [True, False, False]
  assert "does not fit" in made[0].warnings[-1]
  assert made[0].hbm_bytes > made[0].hbm_limit
  made += planning.make_plans(imagenet.get_config("batch=1000"), ["v5e:4x4"], 979, False, log=quietly)
  assert made[-1].cycles is None
  table = plan_report.text(made, 1000)
  assert len([line for line in table.splitlines() if line.startswith("v5e:")]) == 4
  assert "estimate" in table and "938" in table


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:0x4", "tpu7x:2x2x1", ""])
def test_unknown_topologies(name):
  with pytest.raises(UserError, match=f"--topology={name} is not known"):
    planning.before_compiling(imagenet.get_config(), name)


def test_plot_is_drawn(tmp_path):
  rows = [compiled(t, 1024, images_per_second_per_core=500) for t in ("v5e:2x2", "v5e:4x4", "v6e:2x2")]
  plan_report.draw(rows, imagenet.get_config(), str(tmp_path / "plan.png"))
  assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
  for bad in ("plan.jpg", f"{tmp_path}/absent/plan.png"):
    with pytest.raises(UserError, match="--plot="):
      plan_report.check_writable(bad)


def command(*flags):
  line = [sys.executable, "-m", "shufflenet_jax.tpu.plan", *flags]
  return subprocess.run(line, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)


@needs_libtpu
def test_a_real_step_as_a_command():
  """The smallest network, on small images: this takes seconds."""
  small = ["--config=configs/imagenet.py:scale=0.25,groups=3,batch=64", "--config.data.image_size=32"]
  small += ["--config.data.eval_resize=32", "--config.model.repeats=(1,1,1)", "--topology=v5e:2x2,v5e:16x16", "--json"]
  done = command(*small)
  assert done.returncode == 0, done.stderr
  found, impossible = json.loads(done.stdout)["plans"]
  assert found["chips"] == 4 and impossible["chips"] == 256
  assert found["cycles"] > 1e5 and 0 < found["hbm_bytes"] < found["hbm_limit"] == 15.75 * 2**30
  # Gradients in float32 and running statistics: a little more than the 0.2 million parameters.
  assert 2 * 3 / 4 * 4 * 100_000 < found["interconnect_bytes"] < 2 * 3 / 4 * 4 * 400_000
  assert impossible["cycles"] is None and "too small for" in impossible["warnings"][0]


@pytest.mark.parametrize(
  "flags",
  [["--topology=v5e:2x2,v5e:2x2"], ["--topology=nonsense"], ["--plot=x.jpg"], ["stray"], ["--dataset_gb=65"]],
)
def test_wrong_flags_are_one_line(flags):
  done = command("--config=configs/imagenet.py", *flags)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
