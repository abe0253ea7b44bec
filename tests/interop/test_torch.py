"""Against PyTorch itself, and the authors' own checkpoint where it is at hand (../shared beside the project)."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from tests import golden
from tests.authors import SHARED
from tests.commands import ROOT

pytestmark = pytest.mark.torch


def test_stored_outputs_are_what_pytorch_gives():
  from tests.golden import make

  stored = golden.stored()
  for name, (shapes, logits) in make.make().items():
    assert stored[name][0] == shapes
    np.testing.assert_allclose(logits, stored[name][1], atol=1e-4 * np.abs(logits).max())


def small_file(tmp_path, change=lambda weights: weights):
  """A file of the authors' layout with random weights, after `change` to its state dict."""
  import torch

  weights = golden.random_state_dict(golden.stored()["release_g3_0.5x"][0])
  whole = {f"module.{k}": torch.from_numpy(np.array(v)) for k, v in weights.items()}
  torch.save({"state_dict": change(whole)}, tmp_path / "file.pth")
  return tmp_path / "file.pth"


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "is empty"),
    (b"no checkpoint at all", "is a text file: 'no checkpoint at all'"),
    (b"\x00\x01\x02", "cannot be read by PyTorch: Unsupported operand 0"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "is a Git LFS pointer"),
    (b"\n<!DOCTYPE HTML><html>", "is a web page"),
    (b"\x1f\x8b\x08 and so on", "is compressed by gzip: unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    (b"\x02\0\0\0\0\0\0\0{}", "holds no state dict of tensors: what it holds is empty"),  # safetensors
    (
      lambda torch: torch.nn.Linear(2, 2),
      "of type torch.nn.modules.linear.Linear, and its code is not run: save the model",
    ),
    (lambda torch: {"model": torch.nn.Linear(2, 2)}, "of type torch.nn.modules.linear.Linear.* model's state_dict"),
    (lambda torch: {"x": torch.zeros(1), "f": os.system}, "cannot be read by PyTorch: .*posix.system .*blocked"),
    (None, "does not exist"),
    (lambda torch: {"a": 1}, r"holds no state dict of tensors \(dense, of real numbers\): 'a' is of type int"),
    (lambda torch: {"state_dict": torch.zeros(3)}, "what it holds is of type Tensor"),
    (lambda torch: {"state_dict": [torch.zeros(3)]}, "what it holds is of type list"),
    (lambda torch: {"state_dict": {}}, "what it holds is empty"),
    (lambda torch: {1: torch.zeros(3)}, "1 is of type Tensor"),
    (lambda torch: {"a": torch.zeros(3, 3).to_sparse()}, "'a' is of type Tensor .torch.float32, torch.sparse_coo"),
    (lambda torch: {"a": torch.zeros(3, dtype=torch.complex64)}, "'a' is of type Tensor .torch.complex64"),
    (lambda torch: {"a": {"x": torch.zeros(3)}, "b": {"y": torch.zeros(3)}}, r"several state dicts \(a, b\)"),
  ],
)
def test_bad_files_in_one_line_and_nothing_written(tmp_path, content, message):
  import torch

  from shufflenet_jax.interop.torch_checkpoint import import_file

  path = tmp_path / "file.pth"
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content is not None:
    torch.save(content(torch), path)
  with pytest.raises(UserError, match=f"^--from={path} .*{message}") as raised:
    import_file(str(path), str(tmp_path / "w"))
  assert "\n" not in str(raised.value)
  assert not (tmp_path / "w").exists()


def test_a_truncated_file_and_nan_write_nothing(tmp_path):
  from shufflenet_jax.interop.torch_checkpoint import import_file

  path = small_file(tmp_path)
  path.write_bytes(path.read_bytes()[:-5000])
  with pytest.raises(UserError, match="cannot be read by PyTorch: .*failed finding central directory"):
    import_file(str(path), str(tmp_path / "w"))

  def spoil(weights):
    weights["module.classifier.0.weight"][0, 0] = float("nan")
    return weights

  with pytest.raises(UserError, match="classifier.0.weight holds 1 values that are NaN"):
    import_file(str(small_file(tmp_path, spoil)), str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", "parameter"])
def test_any_real_tensor_becomes_float32(tmp_path, kind):
  import torch

  from shufflenet_jax.interop.torch_file import load

  def convert(value):
    if not value.is_floating_point():
      return value
    return torch.nn.Parameter(value) if kind == "parameter" else value.to(getattr(torch, kind))

  path = small_file(tmp_path, lambda weights: {k: convert(v) for k, v in weights.items()})
  loaded = load(str(path))
  weights = golden.random_state_dict(golden.stored()["release_g3_0.5x"][0])
  assert loaded.keys() == weights.keys()
  for key, value in loaded.items():
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, weights[key], rtol=1e-2 if "float" in kind else 0, atol=1e-3)


@pytest.mark.parametrize(
  ("place", "message"),
  [
    ("file", "is a file; name a new directory"),
    ("file/below", "cannot be written, and nothing was left there"),
    ("taken", "is not empty; name a new directory"),
    ("half", "is not empty; name a new directory"),
  ],
)
def test_a_place_that_cannot_be_written_is_left_as_it_was(tmp_path, place, message):
  from shufflenet_jax.interop.torch_checkpoint import import_file

  (tmp_path / "file").write_text("mine")
  (tmp_path / "taken").mkdir()
  (tmp_path / "taken" / "config.json").write_text("mine")
  (tmp_path / "half" / "checkpoints").mkdir(parents=True)
  path = small_file(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(UserError, match=f"^--to={tmp_path / place} {message}"):
    import_file(str(path), str(tmp_path / place))
  assert sorted(tmp_path.rglob("*")) == before
  assert (tmp_path / "taken" / "config.json").read_text() == "mine"


def test_a_full_disk_is_one_line_and_leaves_nothing_and_a_retry_works(tmp_path):
  path, to = small_file(tmp_path), tmp_path / "w"
  command = f"{sys.executable} -m shufflenet_jax.interop.import_torch --from={path} --to={to}"
  limited = subprocess.run(["bash", "-c", f"ulimit -f 300; {command}"], cwd=ROOT, capture_output=True, text=True)
  assert limited.returncode == 2
  [line] = limited.stderr.splitlines()
  assert line.startswith(f"error: --to={to} cannot be written, and nothing was left there: ")
  assert "File too large" in line
  assert list(tmp_path.iterdir()) == [path]
  (to / "checkpoints/0.1234abcd.partial/0").mkdir(parents=True)  # as a killed process leaves it
  (to / "checkpoints/0.1234abcd.partial/0/manifest").touch()
  subprocess.run(command.split(), cwd=ROOT, check=True)
  assert checkpoint.find(str(to)).step == 0
  assert [p.name for p in (to / "checkpoints").iterdir()] == ["0"]


def test_logits_of_the_authors_checkpoint_on_the_same_tensors(authors_checkpoint, imagenet_pictures):
  """Pictures prepared by OpenCV and Pillow, as the reference's were."""
  import cv2
  import jax
  from PIL import Image

  reference = np.load(SHARED / "data" / "imagenet_samples_200_reference.npz")
  found = checkpoint.find(authors_checkpoint)
  model, variables = build.network(found.config.model), found.restore_variables()

  def prepare(encoded):
    image = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    h, w, _ = image.shape
    size = (int(256 / h * w + 0.5), 256) if h < w else (256, int(256 / w * h + 0.5))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    top, left = (round((side - 224) / 2) for side in image.shape[:2])
    return image[top : top + 224, left : left + 224]

  apply = jax.jit(model.apply)
  images = np.stack([prepare(imagenet_pictures[str(name)]) for name in reference["names"]]).astype(np.float32)
  logits = np.concatenate([apply(variables, images[i : i + 50]) for i in range(0, 200, 50)])
  relative = np.abs(logits - reference["logits"]).max(-1) / np.abs(reference["logits"]).max(-1)
  assert relative.max() < 1e-3


def test_evaluate_and_predict_take_the_imported_checkpoint_as_it_is(authors_checkpoint, imagenet_pictures, tmp_path):
  for name, encoded in imagenet_pictures.items():
    path = tmp_path / "folder" / name.split("_")[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)

  def run(module, *arguments):
    return subprocess.run(
      [sys.executable, "-m", f"shufflenet_jax.{module}", f"--checkpoint={authors_checkpoint}", *arguments],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )

  done = run("evaluate", f"--data={tmp_path / 'folder'}", "--config.eval_batch_size=64")
  figures = json.loads(done.stdout.splitlines()[-1])
  assert figures["examples"] == 200
  assert figures["top1"] == pytest.approx(0.675, abs=0.0051)
  assert figures["top5"] == pytest.approx(0.900, abs=0.0051)

  tench = tmp_path / "folder" / "n01440764" / "n01440764_tench.JPEG"
  answer = json.loads(run("predict", "--json", str(tench)).stdout)
  assert answer["classes"][0]["name"] == "n01440764 tench, Tinca tinca"

  (tmp_path / "folder" / "n99999999").mkdir()
  done = run("evaluate", f"--data={tmp_path / 'folder'}")
  assert done.returncode == 2
  assert "n99999999 is not a class of the checkpoint" in done.stderr
