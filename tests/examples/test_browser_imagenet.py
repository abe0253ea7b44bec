"""The page examples/browser/ with the authors' network and ImageNet photographs (../shared beside the project)."""

import tarfile

import numpy as np
import pytest
from scipy.special import softmax

from tests.commands import ROOT, command
from tests.examples.page_actions import answer, upload

pytestmark = pytest.mark.browser

SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "megvii_shufflenetv1_group3_0.5x.pth.tar"
PHOTOGRAPHS = SHARED / "data" / "imagenet_samples_200.tar"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """The ONNX file of the authors' network."""
  pytest.importorskip("torch", reason="importing the authors' weights needs PyTorch (make test-torch installs it)")
  folder = tmp_path_factory.mktemp("network")
  for module, source, to in (
    ("interop.import_torch", f"--from={WEIGHTS}", folder / "imported"),
    ("export", f"--checkpoint={folder / 'imported'}", folder / "model.onnx"),
  ):
    done = command(module, source, f"--to={to}")
    assert done.returncode == 0, done.stderr
  return (folder / "model.onnx").read_bytes()


@pytest.mark.skipif(not WEIGHTS.exists(), reason=f"needs the authors' weights beside the project, {WEIGHTS.name}")
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason=f"needs photographs beside the project, {PHOTOGRAPHS.name}")
def test_photographs_get_the_probabilities_of_the_authors_own_model(page, site, exported):
  """Their model's probabilities were computed with PyTorch, and pictures resized by OpenCV, which rounds."""
  (site.folder / "model.onnx").write_bytes(exported)
  reference = np.load(PHOTOGRAPHS.with_name("imagenet_samples_200_reference.npz"))
  probabilities = dict(zip(reference["names"].tolist(), softmax(reference["logits"].astype(float), axis=-1)))
  page.goto(site.url)
  page.get_by_text("shufflenet_v1 scale=0.5 groups=3 · 1,000 classes · 2.9 MB").wait_for(timeout=60_000)
  for name, words in {
    "n01440764_tench.JPEG": "tench\nTinca tinca",
    "n02391049_zebra.JPEG": "zebra",
    "n03345487_fire_engine.JPEG": "fire engine\nfire truck",
  }.items():
    with tarfile.open(PHOTOGRAPHS) as tar:
      upload(page, name, tar.extractfile(name).read())
    shown = answer(page)
    assert shown[0][0] == words
    expected = 100 * np.sort(probabilities[name])[::-1][:5]
    np.testing.assert_allclose([percent for _, percent in shown], expected, atol=1)
