"""`predict` with a deployed file: the checkpoint's answers, from the file's runtime alone."""

import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import helper

from shufflenet_jax import predict
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.data.stream import augment
from shufflenet_jax.deployment import exporting, network, runtimes
from shufflenet_jax.deployment.predictor import FilePredictor
from shufflenet_jax.errors import UserError
from shufflenet_jax.prediction.predictor import Predictor
from shufflenet_jax.prediction.report import report
from tests.checkpoints import of_random_weights
from tests.commands import ROOT
from tests.pictures import picture, put

TENSORFLOW = ("tensorflow", "tensorflow_datasets", "clu", "tensorboard")
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")
OTHERS = ("google.cloud", "google.api_core", "google.auth", "urllib3", "sklearn", "scipy", "matplotlib", "tabulate")
WITHOUT = """
import sys
for name in sys.argv[1].split(","):
  sys.modules[name] = None  # importing it fails
import runpy
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def predict_without(packages, *arguments):
  """`python -m shufflenet_jax.predict` in a process in which these packages cannot be imported."""
  return subprocess.run(
    [sys.executable, "-c", WITHOUT, ",".join(packages), "shufflenet_jax.predict", *map(str, arguments)],
    cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=120,
  )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A checkpoint of a small network of random weights, with classes that are no ASCII."""
  names = [f"Gänseblümchen {i}" for i in range(10)]
  return checkpoint.find(of_random_weights(tmp_path_factory.mktemp("deployed") / "w", names))


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
  """suffix -> path of the checkpoint as a file, which takes any number of pictures."""
  folder = tmp_path_factory.mktemp("exported")
  paths = {suffix: str(folder / f"net{suffix}") for suffix in runtimes.SUFFIXES}
  for path in paths.values():
    exporting.write(network.of_checkpoint(source), path, exporting.Options())
  return paths


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """A folder of pictures, one of which cannot be decoded."""
  folder = tmp_path_factory.mktemp("photos")
  put(folder / "gray.jpg", picture(90, 60, mode="L"))
  put(folder / "large.jpg", picture(200, 301))
  put(folder / "long.png", picture(20, 700, kind="PNG"))
  put(folder / "sub/small.webp", picture(9, 12, kind="WEBP"))
  put(folder / "sub/truncated.jpg", picture(100, 100)[:-500])
  return folder


def parsed(lines):
  """image -> {class: probability}, of the lines that `--json` prints."""
  answers = map(json.loads, lines)
  return {a["image"]: {c["name"]: c["probability"] for c in a["classes"]} for a in answers}


def assert_alike(answers, expected):
  """That the same images have nearly the same probabilities; classes that are equally probable may change places."""
  assert list(answers) == list(expected)
  for image, classes in answers.items():
    assert [*classes.values()] == pytest.approx([*expected[image].values()], abs=2e-3)
    for name in classes.keys() & expected[image].keys():
      assert classes[name] == pytest.approx(expected[image][name], abs=2e-3)
    assert len(classes.keys() & expected[image].keys()) >= 4


@pytest.mark.parametrize("suffix", runtimes.SUFFIXES)
def test_a_file_answers_like_its_checkpoint_without_jax_and_tensorflow(source, exported, photos, capsys, suffix):
  assert report(Predictor(source), [str(photos)], as_json=True) == 1
  out, err = capsys.readouterr()
  packages = TENSORFLOW if suffix == ".stablehlo" else (*TENSORFLOW, *JAX, *OTHERS, "onnx")
  done = predict_without(packages, f"--checkpoint={exported[suffix]}", "--json", photos)
  assert done.returncode == 1, done.stderr
  assert done.stderr == err
  assert err.startswith(f"error: {photos}/sub/truncated.jpg: not an image that can be decoded: ")
  assert len(out.splitlines()) == 4
  assert_alike(parsed(done.stdout.splitlines()), parsed(out.splitlines()))


def test_the_table_is_the_checkpoints(source, exported, photos, capsys):
  tables = []
  for predictor in (Predictor(source), FilePredictor(exported[".onnx"])):
    assert report(predictor, [f"{photos}/*.jpg"], as_json=False) == 0
    tables.append(capsys.readouterr().out.splitlines())
  of_checkpoint, of_file = tables
  assert of_file[0] == of_checkpoint[0]
  assert of_file[0].endswith("probability  class")
  assert len(of_file) == len(of_checkpoint) == 1 + 2 * 5
  assert of_file[1].index(" %  ") == of_file[0].index("probability") + 9
  for line, other in zip(of_file[1:], of_checkpoint[1:]):
    before, name = line.split(" %  ")
    assert name.startswith("Gänseblümchen ")
    assert len(before) == other.index(" %  ")
    assert before[:-5] == other[: len(before) - 5]
    assert float(before[-5:]) == pytest.approx(float(other[len(before) - 5 : len(before)]), abs=0.3)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width", "resize"), [(32, 32, 32), (32, 32, 40), (48, 48, 50)])
def test_pictures_are_prepared_as_the_file_describes(source, tmp_path, height, width, resize, antialias):
  """The same pixels as those that evaluation has, up to one level."""
  deployed = network.of_checkpoint(source)
  prepare = {"height": height, "width": width, "resize": resize, "antialias": antialias}
  deployed = dataclasses.replace(deployed, description=dataclasses.replace(deployed.description, **prepare))
  path = tmp_path / "net.onnx"
  exporting.write(deployed, str(path), exporting.Options())
  noise = np.random.default_rng(0).integers(0, 256, (99, 150, 3), np.uint8)
  expected = augment.center_crop(tf.constant(noise), height, resize, antialias).numpy()
  found = FilePredictor(str(path)).decode(tf.io.encode_png(noise).numpy())
  assert (found.dtype, found.shape) == (np.uint8, (height, width, 3))
  assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("suffix", runtimes.SUFFIXES)
def test_a_file_of_a_fixed_batch_answers_any_number_of_pictures(source, exported, photos, tmp_path, suffix):
  path = str(tmp_path / f"three{suffix}")
  exporting.write(network.of_checkpoint(source), path, exporting.Options(batch=3))
  fixed, any_number = FilePredictor(path), FilePredictor(exported[suffix])
  assert fixed.batch_sizes[0] == 3
  assert any_number.batch_sizes[0] == 1
  images = [fixed.decode(picture(30 + i, 40)) for i in range(4)]
  for count in (1, 3, 4):
    answers = fixed.answers(images[:count], fixed.batch_sizes[-1])
    expected = any_number.answers(images[:count], any_number.batch_sizes[-1])
    assert [dict(a) for a in answers] == [pytest.approx(dict(e), abs=1e-5) for e in expected]


def foreign_onnx() -> bytes:
  """A network that others have written."""
  tensors = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
  graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", tensors[:1], tensors[1:])
  opsets = [helper.make_opsetid("", 17)]
  return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def zipped() -> bytes:
  """An archive with other files, as other .tflite files have at their end."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr(runtimes.LABELS_FILE, "a\nb\n")
  return file.getvalue()


@pytest.mark.parametrize("suffix", runtimes.SUFFIXES)
@pytest.mark.parametrize(
  "content", [b"", b"no network at all", 0.5, 0.999, foreign_onnx, zipped], ids=lambda c: getattr(c, "__name__", str(c))
)
def test_what_is_no_whole_exported_file_is_one_line(exported, tmp_path, suffix, content, capfd):
  path = tmp_path / f"bad{suffix}"
  if isinstance(content, float):
    whole = pathlib.Path(exported[suffix]).read_bytes()
    content = whole[: int(content * len(whole))]
  path.write_bytes(content() if callable(content) else content)
  with pytest.raises(UserError, match=f"^--checkpoint={path} cannot be run: .*; give a whole file that .*export ") as e:
    FilePredictor(str(path))
  assert "\n" not in str(e.value)
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("suffix", "content"), [(".onnx", foreign_onnx), (".tflite", zipped), (".tflite", bytes)])
def test_files_of_others_have_no_description(tmp_path, suffix, content):
  (tmp_path / f"other{suffix}").write_bytes(content())
  with pytest.raises(
    UserError, match="cannot be run: it has no description; give a whole file that .*export has written"
  ):
    FilePredictor(str(tmp_path / f"other{suffix}"))


@pytest.mark.parametrize("change", [{"classes": ("a", "b")}, {"height": 40}, {"height": "32"}])
def test_a_description_of_another_network_is_refused(exported, tmp_path, capfd, change):
  described = dataclasses.replace(runtimes.load(exported[".tflite"]).description, **change)
  path = tmp_path / "other.tflite"
  path.write_bytes(runtimes.with_archive(pathlib.Path(exported[".tflite"]).read_bytes().split(b"PK")[0], described))
  with pytest.raises(UserError, match=f"^--checkpoint={path} cannot be run: .*; give a whole file"):
    FilePredictor(str(path))
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
  ("suffix", "package"), [(".onnx", "onnxruntime"), (".tflite", "ai_edge_litert"), (".stablehlo", "jax")]
)
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(exported, suffix, package):
  done = predict_without((package,), f"--checkpoint={exported[suffix]}", "a.png")
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.startswith(f"error: the package {package} is not installed; ")
  assert "shufflenet_jax[export]" in done.stderr
  assert done.stderr.count("\n") == 1


def refusal(path) -> str:
  values, arguments = predict.command.parse(["predict", f"--checkpoint={path}", "a.png"])
  with pytest.raises(UserError) as raised:
    predict.main(values, arguments)
  return str(raised.value)


def test_paths_that_lead_to_no_network_are_named_with_what_predict_takes(tmp_path, source):
  absent = f"--checkpoint={tmp_path}/absent.onnx does not exist; python -m shufflenet_jax.export writes such files"
  assert refusal(tmp_path / "absent.onnx") == absent
  (tmp_path / "model.pt").write_bytes(b"weights")
  for name, what in (("model.pt", "is a file"), ("absent", "does not exist")):
    text = refusal(tmp_path / name)
    assert text.startswith(f"--checkpoint={tmp_path}/{name} {what}; give a WORKDIR with checkpoints/")
    assert text.endswith("or a file of export (.tflite, .onnx, .stablehlo)")


def test_a_folder_is_a_checkpoint_whatever_its_name(tmp_path, source):
  os.symlink(source.path, tmp_path / "w.onnx")
  assert not runtimes.is_deployed(str(tmp_path / "w.onnx"))
  assert runtimes.is_deployed(str(tmp_path / "other.ONNX"))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--checkpoint=w", "a.png"], "this needs JAX, which is not installed"),
    (["--checkpoint=gs://bucket/net.onnx", "a.png"], "this needs google-cloud-storage, which is not installed"),
  ],
)
def test_what_needs_more_packages_is_one_line(arguments, message):
  done = predict_without((*TENSORFLOW, *JAX, *OTHERS), *arguments)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {message}")
  assert done.stderr.count("\n") == 1
