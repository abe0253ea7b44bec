"""`python -m shufflenet_jax.export`: what it writes and prints, and what it refuses with nothing left behind."""

import os
import sys

import numpy as np
import pytest
from absl import flags
from ai_edge_litert import schema_py_generated as schema

from shufflenet_jax import deployment, export
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.deployment import exporting, formats, network, runtimes
from shufflenet_jax.errors import CommandEnded, RunFailed, UserError
from tests.checkpoints import of_random_weights
from tests.commands import command
from tests.pictures import picture, put

NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("export") / "w"
  of_random_weights(folder, NAMES)
  return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
  """Forty pictures in folders of two classes, and a file that is none."""
  folder = tmp_path_factory.mktemp("photographs")
  for i in range(40):
    put(folder / f"class {i % 2}" / f"{i}.png", picture(kind="PNG"))
  put(folder / "class 0" / "damaged.jpg", b"\xff\xd8\xff nothing more")
  return folder


def run(*arguments):
  values, _ = export.command.parse(["export", *map(str, arguments)])
  export.main(values)


@pytest.mark.parametrize("suffix", runtimes.SUFFIXES)
def test_a_file_is_written_checked_and_described(workdir, tmp_path, capsys, suffix):
  file = tmp_path / f"new folder/network{suffix}"
  run(f"--checkpoint={workdir}", f"--to={file}")
  first, second, third = capsys.readouterr().out.splitlines()
  assert first == f"exporting {workdir}/checkpoints/0"
  assert second.startswith(f"{file}: 0.") and "its logits differ from the checkpoint's by at most " in second
  assert third == f"next: python -m shufflenet_jax.predict --checkpoint='{file}' picture.jpg"
  described = runtimes.load(str(file)).description
  assert described.classes == tuple(NAMES) and (described.height, described.width, described.resize) == (32, 32, 32)
  assert described.network == "shufflenet_v1 scale=0.25 groups=3" and described.step == 0
  assert os.listdir(file.parent) == [file.name]


def test_a_network_in_bfloat16_is_exported_in_float32(workdir):
  source = checkpoint.find(str(workdir))
  source.config.model.dtype = "bfloat16"
  exported = network.of_checkpoint(source)
  images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
  runtime = runtimes.loaded(".onnx", formats.encode(exported, exported.layers(), ".onnx", None))
  assert exporting.difference(exported, runtime, images) < 5e-6


@pytest.mark.parametrize("kind", ["weights", "full"])
def test_int8(workdir, photographs, tmp_path, capsys, kind):
  file, in_float = tmp_path / "int8.tflite", tmp_path / "float.tflite"
  run(f"--checkpoint={workdir}", f"--to={file}", f"--int8={kind}", f"--calibrate={photographs}")
  line = capsys.readouterr().out.splitlines()[1]
  assert "on 20 held-out pictures, " in line or "on 21 held-out pictures, " in line
  assert " % get the same class as in float32; top-1 on the 2" in line
  run(f"--checkpoint={workdir}", f"--to={in_float}")
  assert file.stat().st_size < in_float.stat().st_size
  tensors = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0).subgraphs[0].tensors
  in_float32 = [tensor.name for tensor in tensors if tensor.type == schema.TensorType.FLOAT32]
  assert (in_float32 == [b"logits"]) == (kind == "full")


def test_pictures_that_cannot_be_decoded_are_named(workdir, photographs, tmp_path, capsys):
  run(f"--checkpoint={workdir}", f"--to={tmp_path}/x.onnx", "--int8=weights", f"--calibrate={photographs}")
  assert capsys.readouterr().err.count("damaged.jpg") == 1


def test_a_file_that_was_there_survives_a_failed_export(workdir, tmp_path, monkeypatch):
  file = tmp_path / "x.onnx"
  file.write_bytes(b"before")
  monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
  with pytest.raises(RunFailed):
    run(f"--checkpoint={workdir}", f"--to={file}")
  assert file.read_bytes() == b"before" and os.listdir(tmp_path) == ["x.onnx"]


def test_a_file_with_other_logits_is_not_kept(workdir, tmp_path, monkeypatch):
  made = network.of_checkpoint(checkpoint.find(str(workdir)))
  wrong = network.Network(lambda images: 1.001 * made.function(images), made.description)
  monkeypatch.setattr(network.Network, "layers", lambda self: made_layers)
  made_layers = network.trace.layers(made.function, 32, 32)
  with pytest.raises(RunFailed, match="differ from the checkpoint's by 1.0e-03 of the largest, more than 1e-04"):
    exporting.write(wrong, f"{tmp_path}/x.onnx", exporting.Options())
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--to=x.pb"], "--to=x.pb ends in none of .tflite, .onnx, .stablehlo"),
    (["--to=x"], "--to=x ends in none of .tflite"),
    (["--to=x.onnx", "--batch=257"], "--batch=257 is neither any nor a number from 1 to 256"),
    (["--to=x.onnx", "--batch=some"], "--batch=some is neither any nor a number from 1 to 256"),
    (["--to=x.onnx", "--batch=0"], "--batch=0 is neither"),
    (["--to=x.onnx", "--batch=1.5"], "--batch=1.5 is neither"),
    (["--to=x.onnx", "--batch=10001"], "--batch=10001 is neither"),
    (["--to=folder.onnx"], "--to=folder.onnx is a folder"),
    (["--to=x.onnx", "--shuffle=none"], "--shuffle"),
    (["--to=x.stablehlo", "--shuffle=dense"], "--shuffle=dense is for .tflite and .onnx"),
    (["--to=x.onnx", "--int8=full", "--calibrate=."], "--int8=full is for .tflite, not for --to=x.onnx"),
    (["--to=x.stablehlo", "--int8=weights", "--calibrate=."], "--int8=weights is for .tflite and .onnx"),
    (["--to=x.onnx", "--int8=weights"], "--int8=weights needs --calibrate=FOLDER"),
    (["--to=x.onnx", "--calibrate=."], "--calibrate=. is for --int8=weights or --int8=full"),
    (["--to=x.onnx", "--int8=weights", "--calibrate=empty"], "--calibrate=empty has no pictures"),
    (["--to=x.onnx", "--int8=weights", "--calibrate=absent"], "--calibrate=absent is no folder"),
    (["--to=x.onnx", "--checkpoint=empty"], "--checkpoint=empty is neither a work directory nor a checkpoint"),
    (["--to=empty/file/x.onnx", "--checkpoint=w"], "empty/file"),
  ],
)
def test_wrong_input_leaves_nothing(workdir, tmp_path, monkeypatch, arguments, words):
  monkeypatch.chdir(tmp_path)
  os.mkdir("empty")
  os.mkdir("folder.onnx")
  os.symlink(workdir, "w")
  put(tmp_path / "empty/file", b"")
  with pytest.raises((CommandEnded, flags.Error)) as raised:
    run("--checkpoint=w", *arguments)
  assert words in str(raised.value).replace(f"{tmp_path}/", "").replace(str(tmp_path), ".")
  assert sorted(os.listdir()) == ["empty", "folder.onnx", "w"] and os.listdir("empty") == ["file"]


@pytest.mark.parametrize(
  ("suffix", "package"), [(".onnx", "onnxruntime"), (".onnx", "onnx"), (".tflite", "ai_edge_litert")]
)
def test_a_missing_package_names_the_extra(workdir, tmp_path, monkeypatch, suffix, package):
  for name in ("onnx_file", "tflite_file", "tflite_graph", "tflite_int8"):  # those that import it at the top
    monkeypatch.delitem(sys.modules, f"shufflenet_jax.deployment.{name}", raising=False)
    monkeypatch.delattr(deployment, name, raising=False)
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UserError, match=rf"{package}.* is not installed; .*shufflenet_jax\[export\]"):
    run(f"--checkpoint={workdir}", f"--to={tmp_path}/x{suffix}")
  assert not os.listdir(tmp_path)


def test_a_place_that_cannot_be_written_is_one_line(workdir):
  done = command("export", f"--checkpoint={workdir}", "--to=/dev/full/x.onnx")
  assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr


def test_a_place_that_cannot_be_written_is_found_before_the_calibration(workdir, photographs, tmp_path):
  put(tmp_path / "file", b"")
  exported = network.of_checkpoint(checkpoint.find(str(workdir)))
  options = exporting.Options(int8="weights", calibrate=str(photographs))
  with pytest.raises(CommandEnded, match="cannot be written"):
    exporting.write(exported, f"{tmp_path}/file/x.onnx", options, show=lambda *_: pytest.fail("calibrated first"))
