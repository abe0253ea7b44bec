"""The authors' weights and ImageNet pictures, where they are at hand (../shared beside the project)."""

import subprocess
import sys
import tarfile

import pytest

from tests.commands import ROOT

SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "megvii_shufflenetv1_group3_0.5x.pth.tar"


@pytest.fixture(scope="session")
def authors_checkpoint(tmp_path_factory):
  """The work directory into which the authors' 0.5x g=3 weights were imported, which needs PyTorch."""
  if not WEIGHTS.exists():
    pytest.skip(f"{WEIGHTS} is not here: the authors' checkpoint")
  pytest.importorskip("torch", reason="importing the authors' weights needs PyTorch (make test-torch installs it)")
  workdir = str(tmp_path_factory.mktemp("imported") / "w")
  arguments = [f"--from={WEIGHTS}", f"--to={workdir}"]
  subprocess.run([sys.executable, "-m", "shufflenet_jax.interop.import_torch", *arguments], cwd=ROOT, check=True)
  return workdir


@pytest.fixture(scope="session")
def imagenet_pictures():
  """name -> JPEG bytes of 200 ImageNet pictures; a name begins with its WordNet id."""
  path = SHARED / "data" / "imagenet_samples_200.tar"
  if not path.exists():
    pytest.skip(f"{path} is not here: 200 ImageNet pictures")
  with tarfile.open(path) as tar:
    return {m.name.split("/")[-1]: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
