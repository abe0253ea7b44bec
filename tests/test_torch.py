"""Against PyTorch itself, and the authors' own checkpoint where it is at hand (../shared beside the project)."""

import io
import json
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from shufflenet_jax import checkpoint, network
from shufflenet_jax.errors import UserError
from tests import golden

pytestmark = pytest.mark.torch

ROOT = pathlib.Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "megvii_shufflenetv1_group3_0.5x.pth.tar"


def test_stored_outputs_are_what_pytorch_gives():
  from tests.golden import make

  stored = golden.stored()
  for name, (shapes, logits) in make.make().items():
    assert stored[name][0] == shapes
    np.testing.assert_allclose(logits, stored[name][1], atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"no checkpoint at all", "is damaged or no PyTorch state dict"),
    (None, "does not exist"),
    ({"a": 1}, "holds no state dict of tensors"),
  ],
)
def test_bad_files_in_one_line_and_nothing_written(tmp_path, content, message):
  import torch

  from shufflenet_jax.interop.import_torch import import_torch

  path = tmp_path / "file.pth"
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content is not None:
    torch.save(content, path)
  with pytest.raises(UserError, match=message):
    import_torch(str(path), str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()


def test_a_truncated_file_and_nan_write_nothing(tmp_path):
  import torch

  from shufflenet_jax.interop.import_torch import import_torch

  weights = golden.random_state_dict(golden.stored()["release_g3_0.5x"][0])
  whole = {f"module.{k}": torch.from_numpy(np.array(v)) for k, v in weights.items()}
  path = tmp_path / "file.pth"
  torch.save({"state_dict": whole}, path)
  path.write_bytes(path.read_bytes()[:-5000])
  with pytest.raises(UserError, match="is damaged"):
    import_torch(str(path), str(tmp_path / "w"))
  whole["module.classifier.0.weight"][0, 0] = float("nan")
  torch.save({"state_dict": whole}, path)
  with pytest.raises(UserError, match="classifier.0.weight holds 1 values that are NaN"):
    import_torch(str(path), str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
  ("key", "cut", "message"),
  [
    (
      "features.5.branch_main_2.1.weight",
      np.s_[:3],
      r"stage3_unit2.expand_norm.scale.* has shape \(3,\); this network has \(",
    ),
    ("first_conv.0.weight", np.s_[:, :1], r"stem.kernel.* has shape \(3, 3, 1, 12\); this network has \(3, 3, 3, 12\)"),
    ("first_conv.0.weight", np.s_[0], "a convolution's has four dimensions"),
  ],
)
def test_a_misshapen_array_is_named(tmp_path, key, cut, message):
  import torch

  from shufflenet_jax.interop.import_torch import import_torch

  weights = golden.random_state_dict(golden.stored()["release_g3_0.5x"][0])
  torch.save({k: torch.from_numpy(np.array(v[cut] if k == key else v)) for k, v in weights.items()}, tmp_path / "f.pth")
  with pytest.raises(UserError, match=message):
    import_torch(str(tmp_path / "f.pth"), str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  if not WEIGHTS.exists():
    pytest.skip(f"{WEIGHTS} is not here: the authors' checkpoint")
  workdir = str(tmp_path_factory.mktemp("imported") / "w")
  arguments = [f"--from={WEIGHTS}", f"--to={workdir}"]
  subprocess.run([sys.executable, "-m", "shufflenet_jax.interop.import_torch", *arguments], cwd=ROOT, check=True)
  return workdir


@pytest.fixture(scope="module")
def pictures():
  """name -> JPEG bytes of 200 ImageNet pictures."""
  path = SHARED / "data" / "imagenet_samples_200.tar"
  if not path.exists():
    pytest.skip(f"{path} is not here: 200 ImageNet pictures")
  with tarfile.open(path) as tar:
    return {m.name.split("/")[-1]: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


def test_logits_of_the_authors_checkpoint_on_the_same_tensors(imported, pictures):
  """Pictures prepared by OpenCV and Pillow, as the reference's were."""
  import cv2
  import jax
  from PIL import Image

  reference = np.load(SHARED / "data" / "imagenet_samples_200_reference.npz")
  found = checkpoint.find(imported)
  model, variables = network.build(found.config.model), found.restore_variables()

  def prepare(encoded):
    image = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    h, w, _ = image.shape
    size = (int(256 / h * w + 0.5), 256) if h < w else (256, int(256 / w * h + 0.5))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    top, left = (round((side - 224) / 2) for side in image.shape[:2])
    return image[top : top + 224, left : left + 224]

  apply = jax.jit(model.apply)
  images = np.stack([prepare(pictures[str(name)]) for name in reference["names"]]).astype(np.float32)
  logits = np.concatenate([apply(variables, images[i : i + 50]) for i in range(0, 200, 50)])
  relative = np.abs(logits - reference["logits"]).max(-1) / np.abs(reference["logits"]).max(-1)
  assert relative.max() < 1e-3


def test_evaluate_and_predict_take_the_imported_checkpoint_as_it_is(imported, pictures, tmp_path):
  for name, encoded in pictures.items():
    path = tmp_path / "folder" / name.split("_")[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)

  def run(module, *arguments):
    return subprocess.run(
      [sys.executable, "-m", f"shufflenet_jax.{module}", f"--checkpoint={imported}", *arguments],
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
  assert "n99999999 is no class of the checkpoint" in done.stderr
