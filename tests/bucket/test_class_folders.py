"""Class folders in a bucket are listed by the same rules as local ones."""

import io

import ml_collections
import pytest
from PIL import Image

from shufflenet_jax import storage
from shufflenet_jax.data import sources
from shufflenet_jax.errors import RunFailed, UserError
from shufflenet_jax.storage import client
from tests.bucket.faults import Fault, status


@pytest.fixture
def data(here):
  """Two classes in `train`: pictures with and without a suffix, and other files."""
  buffer = io.BytesIO()
  Image.new("RGB", (6, 7)).save(buffer, "PNG")
  for name in ("ant/a.png", "ant/deep/b", "bee/c.jfif", "bee/.hidden.png", ".trash/d.png", "loose.png"):
    storage.write_bytes(f"{here.url}/data/train/{name}", buffer.getvalue())
  storage.write_bytes(f"{here.url}/data/train/bee/scan.tif", b"II*\0" + bytes(50))
  return ml_collections.ConfigDict({"name": "folder", "data_dir": f"{here.url}/data"})


def test_class_folders_are_listed(data):
  split = sources.open_split(data, "train", 2, every_class=True)
  assert split.class_names == ("ant", "bee")
  assert split.num_examples == 3
  assert split.note == "ignored: 2 files that are not images in a class folder (bee/scan.tif first)"
  with pytest.raises(RunFailed, match=f"{data.data_dir}/train/ant/a.png could not be read a moment ago, but can now"):
    split.explain(0)
  storage.write_bytes(f"{data.data_dir}/train/ant/deep/b", b"no picture")
  assert split.explain(1).startswith(f"{data.data_dir}/train/ant/deep/b cannot be decoded (it is none of ")
  storage.remove_file(f"{data.data_dir}/train/bee/c.jfif")
  assert split.explain(2) == f"{data.data_dir}/train/bee/c.jfif cannot be read: No such file or directory"


def test_what_is_not_there_and_what_cannot_be_read_now(here, data, monkeypatch):
  monkeypatch.setattr(client, "PATIENCE_SECONDS", 1)
  with pytest.raises(UserError, match="data has no folder 'val'; .* can be train"):
    sources.open_split(data, "val", 2)
  here.faults.add(Fault(status(503), {"list"}))
  with pytest.raises(RunFailed, match="cannot be listed now .HTTP 503.; run the same command again"):
    sources.open_split(data, "train", 2)
