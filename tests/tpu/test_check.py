"""The check on compiled HLO passes for programs with a free shuffle, and fails for others."""

import functools
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import coco, imagenet
from shufflenet_jax import tasks
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.models.channel_shuffle import channel_shuffle
from shufflenet_jax.models.formulations import dense
from shufflenet_jax.models.layers import conv
from shufflenet_jax.models.shufflenet import stage_channels
from shufflenet_jax.tpu import check, comparison, hlo, topology
from shufflenet_jax.tpu.compile import OutOfMemory, Program, compile_step

# JAX's cache stores programs for absent devices, but cannot read them.
pytestmark = pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
TOPOLOGY = "v5e:2x2"
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: jax[tpu] has it for Linux x86-64"
)


def small_config():
  """One unit in each stage and one more, of stride 1, in Stage 2; 128 images per chip, as in the real batch."""
  config = imagenet.get_config("scale=0.5,groups=3")
  config.batch_size, config.data.image_size = 512, 64
  config.model.repeats = (2, 1, 1)
  return config


@functools.cache
def programs(mode):
  config = small_config()
  model = build.network(config.model)
  variants = {
    "own": model,
    "no_shuffle": model.clone(shuffle="none"),
    "reference": model.clone(lowering="reference"),
    "reference_no_shuffle": model.clone(lowering="reference", shuffle="none"),
  }
  devices = topology.devices(TOPOLOGY)
  return {name: compile_step(variant, config, devices, mode) for name, variant in variants.items()}


def report(mode, own, no_shuffle):
  config, reference = small_config(), programs(mode)["reference"]
  found = comparison.activations(config, own.batch, mode)
  return comparison.compare(own, no_shuffle, reference, found, 4, int(mode == "train"), topology.hbm_bytes(TOPOLOGY))


def report_with(group_conv1x1, monkeypatch):
  """The report on inference, with another group convolution in "dense"."""
  no_shuffle = programs("infer")["no_shuffle"]  # all of them compiled before
  monkeypatch.setattr(dense, "group_conv1x1", group_conv1x1)
  config = small_config()
  own = compile_step(build.network(config.model), config, topology.devices(TOPOLOGY), "infer")
  return report("infer", own, no_shuffle)


# Even a small train step takes the TPU compiler most of a minute.
modes = pytest.mark.parametrize("mode", ["infer", pytest.param("train", marks=pytest.mark.slow)])


@needs_libtpu
@modes
def test_the_shuffle_is_free(mode):
  found = report(mode, programs(mode)["own"], programs(mode)["no_shuffle"])
  assert found.holds, found
  assert found.copies_extra == 0 and not found.shuffled_activations and not found.work_extra
  assert found.exchanges == 0
  assert found.all_reduces == (1 if mode == "train" else 0)
  assert found.cycles < 0.9 * found.cycles_reference
  assert "/channel_shuffle/" in programs(mode)["own"].text  # on kernels


def small_detector():
  """Four pictures of 256 pixels per chip, with few regions, on a network as in `small_config`."""
  config = coco.get_config("size=300,scale=0.5,groups=3")
  config.batch_size, config.model.repeats = 16, (2, 1, 1)
  config.data.image_size, config.data.long_side, config.data.short_side = 256, 250, 200
  config.detection.rois = config.detection.proposals = 32
  config.detection.crop = 7
  return config


@needs_libtpu
@modes
def test_the_shuffle_is_free_in_a_detector(mode):
  found = check.check(small_detector(), TOPOLOGY, mode, log=lambda text: None)
  assert found.holds, found
  assert found.all_reduces == (1 if mode == "train" else 0)
  assert found.cycles < 0.9 * found.cycles_reference


@pytest.mark.parametrize("crop", [7, 14])
def test_the_positions_of_a_detectors_maps(crop):
  """A picture's maps, and those of all its regions, are as large as the network says."""
  config = small_detector()
  config.detection.crop, config.detection.proposals = crop, 5
  backbone = build.network(config.model)
  variables = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))

  def sizes(shape, **stages):
    apply = functools.partial(backbone.apply, method="features", **stages)
    maps = jax.eval_shape(lambda v, x: apply(v, x), variables, jnp.zeros(shape))
    return [n * h * w for n, h, w, _ in (maps[name].shape for name in sorted(maps) if name.startswith("stage"))]

  canvas = sizes((1, 256, 256, 3), until="stage3")
  crops = sizes((5, crop, crop, stage_channels(3, 0.5)[1]), after="stage3")
  before, *after, entering, last = tasks.class_of(config).positions(config, "infer")
  assert (after, entering, [last]) == (canvas, 5 * crop * crop, crops)
  assert before == 4 * after[0]


@needs_libtpu
@modes
def test_the_reference_lowering_fails(mode):
  found = report(mode, programs(mode)["reference"], programs(mode)["reference_no_shuffle"])
  assert not found.holds
  assert found.copies_extra >= 3
  assert found.shuffled_activations
  assert {layer[:6] for layer in found.offenders} & {"stage2", "stage3"}


@needs_libtpu
def test_an_activation_transpose_that_hides_its_name_fails(monkeypatch):
  def shuffled_activations(x, kernel, groups, shuffle_groups=1, bias=None):
    y = group_conv1x1(x, kernel, groups, bias=bias)
    if shuffle_groups == 1:
      return y
    y = y.reshape(*y.shape[:-1], shuffle_groups, -1)  # (n, h, w, c) -> (n, h, w, g, c/g)
    return jnp.swapaxes(y, -1, -2).reshape(*x.shape[:-1], -1)

  group_conv1x1 = dense.group_conv1x1
  found = report_with(shuffled_activations, monkeypatch)
  assert not found.shuffled_activations
  assert found.copies_extra > 0
  assert not found.holds


@needs_libtpu
def test_a_shuffle_computed_by_a_product_fails(monkeypatch):
  """A product with a permutation: no moves, nothing in the scope, and few more cycles if the matrix unit is idle."""

  def shuffled_by_product(x, kernel, groups, shuffle_groups=1, bias=None):
    y = group_conv1x1(x, kernel, groups, bias=bias)
    if shuffle_groups == 1:
      return y
    order = channel_shuffle(jnp.arange(y.shape[-1]), shuffle_groups)
    return conv(y, jnp.eye(y.shape[-1])[:, order][None, None])

  group_conv1x1 = dense.group_conv1x1
  found = report_with(shuffled_by_product, monkeypatch)
  assert found.copies_extra == 0 and not found.shuffled_activations
  assert (
    found.work_extra["convolution"] == 4
  )  # one in each unit; two of them are merged into another instruction's pass
  assert not found.holds


@needs_libtpu
def test_command_reports_fails_and_dumps(tmp_path):
  flags = ["--config=configs/imagenet.py:scale=0.25,groups=3", f"--topology={TOPOLOGY}", "--mode=infer", "--json"]
  flags += ["--config.batch_size=512", "--config.data.image_size=64", "--config.model.repeats=(2,1,1)"]
  flags += ["--config.model.lowering=reference", f"--dump_hlo={tmp_path}"]
  command = [sys.executable, "-m", "shufflenet_jax.tpu.check", *flags]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 1, done.stderr
  found = json.loads(done.stdout)
  assert found.keys() == {
    "copies_extra",
    "all_reduces",
    "cycles",
    "cycles_reference",
    "cycles_no_shuffle",
    "hbm_bytes",
    "topology",
    "mode",
  }
  assert found["cycles"] == found["cycles_reference"] > found["cycles_no_shuffle"] > 0
  assert (found["all_reduces"], found["topology"], found["mode"]) == (0, TOPOLOGY, "infer")
  assert {path.name for path in tmp_path.iterdir()} == {f"{n}.hlo.txt" for n in ("own", "no_shuffle", "reference")}
  assert "ENTRY" in (tmp_path / "own.hlo.txt").read_text()


@needs_libtpu
@pytest.mark.parametrize("name", ["v5e:1x9", "v9:2x2", "v5e", "nonsense"])
def test_the_error_for_an_unknown_topology_names_valid_ones(name):
  with pytest.raises(UserError, match=f"--topology={name} .*v5e:2x4"):
    topology.devices(name)


@needs_libtpu
def test_a_batch_that_does_not_divide_is_refused():
  config = small_config()
  config.batch_size = 510
  with pytest.raises(UserError, match="config.batch_size=510 does not divide over 4 devices; nearest: 508, 512"):
    check.check(config, TOPOLOGY, "train", log=lambda text: None)


@needs_libtpu
def test_the_error_for_a_batch_that_does_not_fit_names_one_that_fits(monkeypatch):
  """The search over batches, with a compiler whose programs need 1 GiB, and 16 MiB per image."""

  def compiler(model, config, devices, mode):
    used = 2**30 + config.batch_size // len(devices) * 2**24
    if used > 2**34:
      raise OutOfMemory(used, 2**34)
    return Program("", [], 1, used)

  monkeypatch.setattr("shufflenet_jax.tpu.compile.compile_step", compiler)
  config = small_config()
  config.batch_size = 4 * 2048
  with pytest.raises(UserError, match=r"batch_size=8192 needs 17\.00 GiB more .* batch_size=(\d+) fits") as caught:
    check.check(config, TOPOLOGY, "train", log=lambda text: None)
  fits = int(str(caught.value).split("batch_size=")[2].split()[0])
  assert 4 * 960 * 0.93 <= fits <= 4 * 960


@needs_libtpu
def test_the_compilers_error_for_a_batch_that_does_not_fit_is_parsed():
  config = small_config()
  config.model.repeats = (1, 1, 1)
  config.batch_size = 2**20
  with pytest.raises(OutOfMemory) as caught:
    compile_step(build.network(config.model), config, topology.devices(TOPOLOGY), "infer")
  assert caught.value.used > caught.value.limit == topology.hbm_bytes(TOPOLOGY)


def test_a_loops_body_runs_as_often_as_its_condition_says():
  text = """HloModule m
%body (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %r = bf16[8]{0} all-reduce(%x), to_apply=%add, "estimated_cycles":"7"
}

%condition (p: (s32[], bf16[8])) -> pred[] {
  %c = s32[]{:T(128)} constant(5), metadata={op_name="x"}
  ROOT %lt = pred[]{:T(512)} compare(%i, %c), direction=LT
}

ENTRY %main (p: bf16[8]) -> bf16[8] {
  %c = s32[]{:T(128)} constant(9)
  %w = (s32[], bf16[8]) while(%t), condition=%condition, body=%body
  ROOT %a = bf16[8]{0} add(%g, %g), backend_config={"estimated_cycles":"3"}
}
"""
  instructions = hlo.parse(text)
  assert hlo.cycles(instructions) == 5 * 7 + 3
  assert len(hlo.all_reduces(instructions)) == 5


def test_dimensions_of_which_only_a_bound_is_known_are_counted():
  """Such as boxes that a program keeps; `<=` in other places, as in a bound of a loop, is none."""
  text = """
  %a = f32[<=100,4]{1,0} custom-call(%x, %n), custom_call_target="SetBound"
  %b = f32[100,4]{1,0} add(%x, %y), metadata={op_name="x[i <= n]"}
  %c = (s32[2,<=7]{1,0}, pred[]) tuple(%p, %q)
"""
  assert hlo.dynamic_dimensions(text) == 2


def test_other_networks_have_no_shuffle():
  with pytest.raises(UserError, match="vgg16 has no channel shuffle"):
    check.check(imagenet.get_config("network=vgg16"), TOPOLOGY, "train")


HLO = """HloModule m
%inner (p: bf16[8,4,4,6]) -> bf16[8,4,4,6] {
  %p = bf16[8,4,4,6]{3,2,1,0} parameter(0)
  ROOT %m = bf16[8,4,4,6]{3,2,1,0} convolution(%p, %p)
}

%fused_a (p: bf16[8,4,4,6]) -> bf16[8,4,4,6] {
  %p = bf16[8,4,4,6]{3,2,1,0} parameter(0)
  %i = bf16[8,4,4,6]{3,2,1,0} fusion(%p), kind=kLoop, calls=%inner
  ROOT %t = bf16[8,4,4,6]{3,2,1,0} transpose(%i), dimensions={0,1,2,3}, metadata={op_name="jit(f)/stage2_unit1/x"}
}

%fused_b (p: bf16[8,4,4,6]) -> bf16[8,4,4,6] {
  %p = bf16[8,4,4,6]{3,2,1,0} parameter(0)
  ROOT %t = bf16[8,4,4,6]{3,2,1,0} transpose(%p), dimensions={0,1,2,3}, metadata={op_name="jit(f)/stage2_unit1/x"}
}

ENTRY %main (p: bf16[8,4,4,6]) -> (bf16[8,4,4,6], f32[]) {
  %p = bf16[8,4,4,6]{0,3,2,1:T(8,128)(2,1)} parameter(0)
  %f = bf16[8,4,4,6]{3,2,1,0} fusion(%p), kind=kLoop, calls=%fused_a, backend_config={"estimated_cycles":"70"}
  %c = bf16[8,4,4,6]{3,2,1,0} copy(%f), metadata={op_name="transpose(jvp(N))/stage2_unit1/a"}, "estimated_cycles":"5"
  %merged = bf16[32,4,6]{2,1,0} copy(%c)
  %half = bf16[4,4,4,6]{2,1,3,0} copy(%s)
  %taken = f32[6]{0} reduce(%c), "estimated_cycles":"2"
  %dense = bf16[80,10]{1,0} copy(%q), "estimated_cycles":"9"
  %g = bf16[8,4,4,6]{3,2,1,0} fusion(%c), kind=kLoop, calls=%fused_b
  %near = (bf16[8,4,4,6]{3,2,1,0:S(1)}, bf16[8,4,4,6]{3,2,1,0}, u32[]) copy-start(%g)
  %turned = (bf16[8,4,4,6]{0,2,1,3:S(1)}, bf16[8,4,4,6]{3,2,1,0}, u32[]) copy-start(%g)
  %k = f32[1,1,8,6]{3,2,1,0} copy(%q), metadata={op_name="stage2_unit1/b"}
  %b = bf16[8,4,24]{2,1,0} bitcast(%c)
  %named = bf16[8,4,4,6]{3,2,1,0} custom-call(%g), custom_call_target="ConcatBitcast"
  %kernel = bf16[8,4,4,6]{3,2,1,0} custom-call(%g), custom_call_target="tpu_custom_call"
  %r = (f32[], f32[6]) all-reduce(%s, %u), replica_groups={}
  %e = f32[8]{0} all-gather(%s), replica_groups={}
  ROOT %o = (bf16[8,4,4,6], f32[]) tuple(%c, %r)
}
"""


def test_parser_reads_opcodes_shapes_cycles_and_layers():
  instructions = hlo.parse(HLO)
  opcodes = "parameter fusion copy copy copy reduce copy fusion copy-start copy-start copy bitcast"
  opcodes += " custom-call custom-call all-reduce all-gather tuple"
  assert [i.opcode for i in instructions if not i.in_fusion] == opcodes.split()
  assert hlo.cycles(instructions) == 86
  assert [i.name for i in hlo.all_reduces(instructions)] == ["r"]
  assert [i.name for i in hlo.exchanges(instructions)] == ["e"]


def test_moves_and_work_of_activations():
  """Moves count also with merged dimensions and of half a batch; not inside larger fusions, of kernels, or bitcasts."""
  instructions = hlo.parse(HLO)
  activations = hlo.Activations(8 * 96 // 2, frozenset({800}))
  moved = hlo.moves(instructions, activations)
  assert [i.name for i in moved] == ["c", "merged", "half", "g", "turned"]
  assert (moved[0].arrays, moved[0].layer) == ((("bf16", (8, 4, 4, 6)),), "stage2_unit1 backward")
  assert not hlo.moves(instructions, hlo.Activations(8 * 96 + 1, frozenset({800})))
  # Passes: f, c, merged, half, g and kernel. The convolution is inside f.
  assert hlo.work(instructions, activations) == {"passes": 6, "convolution": 1, "custom-call": 1}
  assert hlo.cycles(instructions, activations) == 70 + 5 + 2  # without instructions on kernels only


@needs_libtpu
def test_large_kernels_are_not_activations():
  """Stage 4's dense kernel has more elements than its activation for 32 images; 960 is a multiple of 32."""
  config = imagenet.get_config("scale=1.0,groups=3")
  config.batch_size, config.data.image_size, config.model.repeats = 128, 64, (1, 1, 2)
  found = check.check(config, TOPOLOGY, "infer", log=lambda text: None)
  assert found.copies_extra == 0 and not found.shuffled_activations and not found.work_extra
  assert found.holds, found
