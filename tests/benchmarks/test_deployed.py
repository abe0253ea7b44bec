"""Table 8: the networks, the turns and the report. Nothing here depends on how long anything takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.deployed import measuring, networks, plot, report, table8, turns
from benchmarks.deployed.runtimes import RUNTIMES
from shufflenet_jax.deployment import evaluate, layers, trace
from tests.deployment.networks import make, pictures

SIZE = (64, 96)


def measured(**rounds_ms) -> report.Measured:
  """As if these had been measured at 224x224."""
  multiply_adds = {"0.5x": 38_000_000, "1x": 140_000_000, "alexnet": 722_000_000}
  return report.Measured("224x224", multiply_adds, rounds_ms, {name: name.title() for name in rounds_ms})


def test_speedups_are_of_the_medians_and_over_alexnet_in_the_same_runtime():
  made = measured(
    litert={"0.5x": [2.0, 9.0, 1.0], "1x": [5.0, 5.0, 5.0], "alexnet": [30.0, 28.0, 90.0]},
    onnxruntime={"0.5x": [4.0], "alexnet": [40.0]},
    xla={"0.5x": [4.0]},
  )
  assert made.ms["litert"] == {"0.5x": 2.0, "1x": 5.0, "alexnet": 30.0}
  assert made.speedups == {
    "litert": {"0.5x": 15.0, "1x": 6.0, "alexnet": 1.0},
    "onnxruntime": {"0.5x": 10.0, "alexnet": 1.0},
  }
  assert made.theoretical["0.5x"] == pytest.approx(19)
  assert made.paper["0.5x"] == pytest.approx(12.1, abs=0.05)
  assert made.paper["1x"] == pytest.approx(4.9, abs=0.05)


def test_the_report_compares_with_the_paper_and_with_the_generic_export():
  made = measured(
    onnxruntime={"0.5x": [4.0], "1x": [5.0], "alexnet": [40.0]},
    generic={"0.5x": [5.0]},
  )
  assert made.of_generic == {"generic": {"0.5x": 0.8}}
  text = report.as_text(dataclasses.replace(made, failures=["Ncnn does not run it"]))
  assert "- Onnxruntime: ShuffleNet 0.5x g=3 is 10.0 times as fast as AlexNet; the paper has 12.1: not reached." in text
  assert "- Onnxruntime: ShuffleNet 1x g=3 is 8.00 times as fast as AlexNet; the paper has 4.87: reached." in text
  assert "- Onnxruntime: our ShuffleNet 0.5x g=3 takes 0.80 of the time of Generic (5.00 ms)." in text
  assert text.endswith("- Ncnn does not run it\n")
  speedups = text.partition("AlexNet's time over the network's:")[2]
  assert "Generic" not in speedups.partition("\n\n-")[0]


def test_without_alexnet_there_are_times_and_no_speedups():
  made = report.Measured("224x224", {"1x": 1}, {"litert": {"1x": [5.0]}}, {"litert": "LiteRT"})
  assert made.speedups == {} and "AlexNet" not in report.as_text(made)


@pytest.mark.parametrize("size", table8.SIZES)
def test_alexnet_keeps_its_weights_at_every_size(size):
  network = networks.make("alexnet", table8.SIZES[size])
  order = layers.in_order(network.output)
  assert not any(isinstance(layer, layers.LocalResponseNorm) for layer in order)
  (flat,) = (layer for layer in order if isinstance(layer, layers.Flatten))
  assert flat.x.shape == (6, 6, 256)
  pools = [layer for layer in order if isinstance(layer, layers.AveragePool)]
  assert len(pools) == (size != "224x224")
  for pool in pools:  # the windows cover the map exactly
    sides = zip(pool.x.shape, pool.window, pool.stride)
    assert all(window + 5 * stride == side and window >= stride for side, window, stride in sides)
  if size == "224x224":
    assert network.multiply_adds / 1e6 == pytest.approx(720, rel=0.01)  # Table 8


@pytest.mark.slow
def test_a_resized_network_is_the_one_that_is_traced_at_that_size():
  function = make("network=mobilenet_v1,scale=0.25").function
  output, expected = networks.resized(trace.layers(function, 64, 64), *SIZE), trace.layers(function, *SIZE)
  shapes = [(type(layer), layer.shape) for layer in layers.in_order(output)]
  assert shapes == [(type(layer), layer.shape) for layer in layers.in_order(expected)]
  images = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
  np.testing.assert_allclose(evaluate.values(output, images)[output], function(jnp.asarray(images)), rtol=1e-4)


def test_functions_take_turns():
  called = []
  functions = {name: lambda name=name: called.append(name) for name in "ab"}
  times = turns.take_turns(functions, rounds=3, seconds=0)
  assert called == ["a", "a", "b", "b"] * 3  # an untimed call, then a timed one
  assert {name: len(ms) for name, ms in times.items()} == {"a": 3, "b": 3}


def test_a_round_of_a_small_network(monkeypatch):
  """One runtime gives other logits, and another fails; neither is reported."""
  monkeypatch.setitem(table8.NETWORKS, "small", table8.Row("ShuffleNet 0.25x g=3", "scale=0.25,groups=3", {}))
  monkeypatch.setitem(table8.SIZES, "64x96", SIZE)

  def fails(network):
    raise RuntimeError("no\nmemory")

  wrong = dataclasses.replace(RUNTIMES["onnxruntime"], load=lambda network: lambda images: np.zeros((1, 1000)))
  monkeypatch.setitem(RUNTIMES, "wrong", dataclasses.replace(wrong, title="Wrong"))
  monkeypatch.setitem(RUNTIMES, "failing", dataclasses.replace(wrong, title="Failing", load=fails))
  runtimes = ["litert", "onnxruntime", "wrong", "failing"]
  done = measuring.measure("64x96", ["small"], runtimes, rounds=1, seconds=0)
  assert [len(done.rounds_ms[name].get("small", [])) for name in runtimes] == [1, 1, 0, 0]
  assert "Wrong does not run ShuffleNet 0.25x g=3: its logits differ" in done.failures[0]
  assert done.failures[1] == "Failing does not run ShuffleNet 0.25x g=3: no memory"
  assert "| ShuffleNet 0.25x g=3 |" in report.as_text(done)


def test_the_plot_is_a_png_file(tmp_path):
  path = tmp_path / "speedups.png"
  plot.save([measured(litert={"0.5x": [2.0], "alexnet": [30.0]})] * 2, str(path))
  assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.torch
@pytest.mark.parametrize("arguments", ["scale=0.25,groups=3", "network=mobilenet_v1,scale=0.25", "network=alexnet"])
def test_pytorch_computes_the_same_layers(arguments):
  import torch

  from benchmarks.deployed import in_torch

  output, images = make(arguments).layers(), pictures(2)
  logits = in_torch.Module(output)(torch.from_numpy(images)).numpy()
  expected = np.asarray(evaluate.values(output, jnp.asarray(images))[output])
  np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.onnx's exporter without onnxscript is the older one
@pytest.mark.parametrize("scaling", [None, ((120.0,) * 3, (60.0,) * 3)])
def test_the_generic_export_takes_the_same_pictures(scaling):
  from benchmarks.deployed import generic

  run = generic.load(3, 0.25, scaling)
  noise, black = pictures(1, 224), np.zeros((1, 224, 224, 3), np.uint8)
  assert run(noise).shape == (1, 1000)
  assert np.array_equal(run(noise), run(black)) == (scaling is None)


@pytest.mark.slow
def test_random_weights_keep_values_away_from_zero_and_infinity():
  """Times depend on values only where these underflow: denormal numbers are slow."""
  for name in ("0.5x", "mobilenet"):
    output = networks.make(name, (64, 64)).output
    values = jax.device_get(evaluate.compiled(output, lambda values: dict(enumerate(values.values())))(pictures(1)))
    for value in list(values.values())[1:]:
      assert np.isfinite(value).all()
      assert np.abs(value[value != 0]).min() > np.finfo(np.float32).tiny
