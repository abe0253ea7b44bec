"""The GPU benchmark, rehearsed on the CPU. Nothing here depends on how long anything takes."""

import gzip
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks.gpu import cells, in_jax, kernels, measuring, report, run
from benchmarks.gpu.cells import Cell, Part
from benchmarks.random_values import random_values
from tests.commands import ROOT

# A bare GPU machine has JAX and PyTorch, and none of these.
# To import what `sys.modules` has as None is an error.
BLOCKED = """
import runpy, sys
sys.modules.update(dict.fromkeys({absent}))
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
ABSENT = {"tensorflow", "tensorflow_datasets", "clu", "ml_collections", "faster_coco_eval", "xprof", "tensorboard"}


def benchmark(out, *flags):
  """`python -m benchmarks.gpu` where the packages of `ABSENT` cannot be imported, and what it wrote."""
  done = subprocess.run(
    [sys.executable, "-c", BLOCKED.format(absent=ABSENT), f"--out={out}", *flags],
    cwd=ROOT, env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}, capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  results = out / "results.json"
  return done, json.loads(results.read_text()) if results.exists() else None


def test_a_rehearsal_measures_every_formulation_and_lists_the_longest_kernels(tmp_path):
  done, results = benchmark(tmp_path, "--rehearse", "--cells=1-1", "--without_torch")
  assert done.returncode == 0, done.stderr
  (figures,) = results["measured"].values()
  assert set(figures) == {"dense", "reference", "planes"}
  for one in figures.values():
    assert one["images_per_second"] == pytest.approx(4000 / one["ms"]) and len(one["rounds_ms"]) == 2
    assert one["speedup"] is None and one["memory_gib"] > 0
  listed = results["longest_kernels"]["kernels"]
  assert listed == sorted(listed, key=lambda kernel: -kernel["ms"])
  assert {"stem", "stage2_unit1 backward"} <= {kernel["layer"] for kernel in listed}
  with gzip.open(tmp_path / "train_step.hlo.txt.gz", "rt") as file:
    assert f"%{listed[0]['instruction']} = " in file.read()
  text = (tmp_path / "results.md").read_text()
  assert "No comparison with PyTorch" in text and "## The longest kernels of 0.25x g=3, batch 4" in text


@pytest.mark.torch
def test_a_rehearsal_with_pytorch(tmp_path):
  done, results = benchmark(tmp_path, "--rehearse", "--cells=1-2")
  assert done.returncode == 0, done.stderr
  assert len(results["measured"]) == 2
  for figures in results["measured"].values():
    assert set(figures) == set(cells.ALL)
    base = figures["torch compiled"]["ms"]
    assert {name: one["speedup"] for name, one in figures.items()} == pytest.approx(
      {name: base / one["ms"] for name, one in figures.items()}
    )


def test_what_would_take_too_long_is_skipped_and_named(tmp_path):
  done, results = benchmark(tmp_path, "--rehearse", "--seconds=5", "--cells=31-32", "--without_torch")
  assert done.returncode == 1
  assert results["measured"] == {} and len(results["skipped"]) == 3  # the first cell has two parts
  assert "cell 32: 0.125x g=8, batch 8, float32, infer: dense" in (tmp_path / "results.md").read_text()


def test_no_gpu_and_wrong_flags_in_one_line(tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  done, results = benchmark(tmp_path)
  assert done.returncode == 2 and results is None
  assert done.stderr.startswith("error: JAX finds no GPU: jax.devices() gives cpu; ")
  assert "--rehearse" in done.stderr and done.stderr.count("\n") == 1
  done, _ = benchmark(tmp_path, "--cells=3-40")
  assert done.returncode == 2
  assert done.stderr.endswith("--cells=3-40 must be FIRST-LAST, from 1 to 32, for instance 1-8\n")


def test_the_first_cell_is_the_paper_s_network_and_every_cell_is_there_once():
  order = cells.in_order(cells.Sizes())
  assert [str(cell) for cell in order[:3]] == [
    "1x g=3, batch 256, bfloat16, train", "1x g=3, batch 256, bfloat16, infer", "1x g=3, batch 1024, bfloat16, train"
  ]  # fmt: skip
  assert len(set(order)) == len(order) == 32
  parts = cells.parts(order, torch=True)
  assert parts[0] == Part(order[0], ("dense", "torch compiled", "torch eager"))
  assert [part.cell for part in parts[1:]] == order and {part.names for part in parts[1:]} == {cells.ALL}


def test_functions_take_turns_and_one_that_fails_does_not_stop_the_others():
  called = []

  def step(name):
    called.append(name)
    if name == "b" and called.count("b") > 3:
      raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile trying to allocate")

  runs = {name: lambda steps, name=name: step(name) for name in "ab"}
  times, failures = measuring.take_turns(runs, rounds=2, seconds=0)
  assert called == ["a", "a", "b", "b"] + ["a", "a", "b", "b"] + ["a", "a"]
  assert set(times) == {"a"} and len(times["a"]) == 2
  assert failures == {"b": "out of memory: RESOURCE_EXHAUSTED: Out of memory while trying to allocate"}


def test_a_run_that_is_out_of_time_leaves_what_it_has_and_says_where_it_was(tmp_path, monkeypatch):
  monkeypatch.setattr(run.os, "_exit", sys.exit)
  record = report.Record(str(tmp_path), {"title": "T", "date": "D", "device": "X", "card": {}, "versions": {}})
  late = run.Run(str(tmp_path), cells.REHEARSAL, record, deadline=0)
  late.measure(range(1, 2), with_torch=False)
  with pytest.raises(SystemExit):
    late.abandon()
  assert "Stopped for want of time in cell 1: 0.25x g=3" in (tmp_path / "results.md").read_text()


def test_a_failure_is_reported_and_not_tried_again(tmp_path):
  part = Part(Cell(1.0, 3, 8, "float32", "train"), ("dense", "planes"))
  programs = measuring.Programs(cells.REHEARSAL)
  programs.ready = {"dense": in_jax.Program(lambda steps: None, prepare_seconds=1.0, memory_gib=0.5)}
  programs.failures = {"planes": "out of memory: no"}
  record = report.Record(str(tmp_path), {"title": "T", "date": "D", "device": "X", "card": {}, "versions": {}})
  record.add(part, measuring.measure(part, programs, cells.REHEARSAL))
  text = (tmp_path / "results.md").read_text()
  assert "- 1x g=3, batch 8, float32, train, planes: out of memory: no" in text
  assert "| 1x g=3, batch 8, float32, train | dense" in text


def test_a_gpu_s_kernels_are_those_of_its_streams():
  """The events are as XLA writes them for GPUs: a process for each device, with threads for streams and for sums."""
  process = {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "/device:GPU:0"}}
  threads = [
    {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
    for tid, name in ((14, "Stream #14(Compute)"), (15, "XLA Modules"))
  ]
  events = [
    {"ph": "X", "pid": 1, "tid": 14, "ts": 0, "dur": 300, "name": "loop_fusion", "args": {"hlo_op": "fusion.1"}},
    {"ph": "X", "pid": 1, "tid": 14, "ts": 400, "dur": 500, "name": "cudnn_conv", "args": {"hlo_op": "conv.2"}},
    {"ph": "X", "pid": 1, "tid": 14, "ts": 900, "dur": 300, "name": "loop_fusion", "args": {"hlo_op": "fusion.1"}},
    {"ph": "X", "pid": 1, "tid": 14, "ts": 1200, "dur": 10, "name": "fusion_1"},
    {"ph": "X", "pid": 1, "tid": 15, "ts": 0, "dur": 9000, "name": "jit_step"},
    {"ph": "X", "pid": 2, "tid": 14, "ts": 0, "dur": 9000, "name": "host", "args": {"hlo_op": "fusion.1"}},
  ]
  program = """
%fused (p: f32[4]) -> f32[4] {
  ROOT %add.1 = f32[4]{0} add(%p, %p)
}
ENTRY %main (p: f32[4]) -> f32[4] {
  ROOT %fusion.1 = f32[4]{0} fusion(%p), kind=kLoop, calls=%fused, metadata={op_name="transpose(N)/stage2_unit3/add"}
}
"""
  trace = {"traceEvents": [process, *threads, *events]}
  longest = kernels.longest_first(trace, steps=2, program=program)
  assert longest == [
    kernels.Kernel("loop_fusion", "fusion.1", 0.3, 1, "stage2_unit3 backward", "transpose(N)/stage2_unit3/add"),
    kernels.Kernel("cudnn_conv", "conv.2", 0.25, 0.5),
    kernels.Kernel("fusion_1", "", 0.005, 0.5, "stage2_unit3 backward", "transpose(N)/stage2_unit3/add"),
  ]
  assert [kernel.layer for kernel in kernels.longest_first(trace, 2, program.replace("calls=%fused, ", ""))] == [""] * 3
  assert "| 0.300       | 54.1 %" in report.kernel_table(longest)


def test_random_values_are_a_fresh_state_but_for_the_kernels():
  leaf = jax.ShapeDtypeStruct
  shapes = {"kernel": leaf((3, 3, 3, 8), np.float32), "scale": leaf((8,), np.float32), "mean": leaf((8,), np.float32)}
  values = random_values({"params": shapes, "opt_state": shapes})
  assert values["params"]["kernel"].std() == pytest.approx((2 / 27) ** 0.5, rel=0.2)
  assert values["params"]["scale"].all() and not values["params"]["mean"].any()
  assert not any(leaf.any() for leaf in values["opt_state"].values())


@pytest.mark.torch
@pytest.mark.parametrize(("groups", "scale"), [(3, 0.25), (8, 0.5)])
def test_our_network_in_pytorch_is_pytorchcv_s(groups, scale, monkeypatch):
  import torch

  from benchmarks.gpu import torch_network

  torch.manual_seed(0)
  theirs = torch_network.network(groups, scale, (1, 2, 1), 5).eval()
  monkeypatch.setattr(torch_network.importlib.util, "find_spec", lambda name: None)
  ours = torch_network.network(groups, scale, (1, 2, 1), 5).eval()
  assert type(ours).__module__ == "benchmarks.gpu.torch_network" != type(theirs).__module__
  ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
  images = torch.randn(2, 3, 64, 64)
  with torch.no_grad():
    torch.testing.assert_close(ours(images), theirs(images))
