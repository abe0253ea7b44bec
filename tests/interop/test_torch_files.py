"""The same weights out of every container of the field, and no code of the file run."""

import argparse
import collections
import datetime
import functools
import pathlib
import tarfile
import types
import zipfile

import numpy as np
import pytest

from shufflenet_jax.errors import UserError
from shufflenet_jax.interop import torch_layouts
from tests import golden

pytestmark = pytest.mark.torch


def weights():
  """A state dict of the authors' layout with random weights."""
  import torch

  arrays = golden.random_state_dict(golden.stored()["release_g3_0.5x"][0])
  return collections.OrderedDict((key, torch.from_numpy(np.array(value))) for key, value in arrays.items())


class Settings(dict):
  """As yacs and mmcv have them: a dict with a class of its own."""


class Names(list):
  """A list with a class of its own."""


class Ran:
  """Notes that it was made."""

  made = 0

  def __reduce__(self):
    return (run, ())


def run():
  Ran.made += 1
  return Ran()


BESIDE = {
  "epoch": 90,
  "best": np.float64(67.9),
  "top1": np.float32(0.679),
  "history": np.arange(3),
  "seeds": {"numpy": np.random.RandomState(0).get_state()},
  "args": argparse.Namespace(lr=0.5, out=pathlib.PurePosixPath("runs")),
  "figures": collections.defaultdict(list, loss=[1.0]),
  "config": Settings(model=Settings(groups=3)),
  "classes": Names(["tench"]),
  "recent": collections.deque([1, 2]),
  "when": datetime.datetime(2017, 7, 4),
  "other": types.SimpleNamespace(a=1),
  "schedule": functools.partial(max, 1),
  "code": Ran(),
}


def prefixed(prefix):
  return lambda w: {prefix + key: value for key, value in w.items()}


@pytest.mark.parametrize(
  "wrap",
  [
    dict,
    prefixed("module."),
    prefixed("_orig_mod.module."),
    prefixed("model.net."),
    prefixed("shufflenet."),
    *(lambda w, key=key: {key: w, "epoch": 3} for key in
      ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "module", "ema",
       "state_dict_ema", "model_ema", "my_shufflenet")),
    lambda w: {"model": {"state_dict": w}},
    lambda w: {"ema": {"module": prefixed("module.")(w)}},
    lambda w: {"state_dict_ema": dict.fromkeys(w, w["classifier.0.weight"]), "state_dict": w},
    lambda w: {"model": {"name": "shufflenet", "groups": 3}, "net": w},
    lambda w: {"model": w, "optimizer": {"state": {0: {"momentum_buffer": w["classifier.0.weight"]}}}},
    lambda w: {"my_shufflenet": w, "optimizer": {"state": {0: {"x": w["classifier.0.weight"]}}, "param_groups": []}},
    lambda w: dict(w) | BESIDE,
    lambda w: {"state_dict": w} | BESIDE,
    lambda w: {"state_dict": w, "rng_state": w["classifier.0.weight"]},
    lambda w: prefixed("module.")(w) | {"n_averaged": w["classifier.0.weight"].sum()},
    lambda w: dict(w) | {"features.0.total_ops": w["classifier.0.weight"].sum()},
    lambda w: {key: value.numpy() for key, value in w.items()},
  ],
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_every_container_gives_the_weights(tmp_path, wrap, legacy):
  import torch

  from shufflenet_jax.interop.torch_file import load

  whole, Ran.made = weights(), 0
  torch.save(wrap(whole), tmp_path / "f.pth", _use_new_zipfile_serialization=not legacy)
  loaded = load(str(tmp_path / "f.pth"))
  assert loaded.keys() == whole.keys()
  for key, value in loaded.items():
    np.testing.assert_array_equal(value, whole[key].float().numpy())
  assert torch_layouts.recognise(loaded).name == "the authors' release"
  assert Ran.made == 0


def test_safetensors(tmp_path):
  import safetensors.torch

  from shufflenet_jax.interop.torch_file import load

  safetensors.torch.save_file(dict(weights()), tmp_path / "any_name")
  assert load(str(tmp_path / "any_name")).keys() == weights().keys()


def test_archives_are_named_with_what_they_hold(tmp_path):
  from shufflenet_jax.interop.torch_file import load

  (tmp_path / "model.pth").write_bytes(b"x")
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    archive.write(tmp_path / "model.pth", "model.pth")
  with tarfile.open(tmp_path / "a.tar", "w") as archive:
    archive.add(tmp_path / "model.pth", "model.pth")
  np.savez(tmp_path / "a.npz", weight=np.zeros(3))
  with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:  # as torch.jit.save names its parts
    for part in ("data.pkl", "constants.pkl", "code/__torch__.py"):
      archive.writestr(f"a/{part}", b"x")
  for name, words in {
    "a.zip": "is a zip archive of model.pth, not PyTorch's: unpack it first",
    "a.tar": "is a tar archive of model.pth: unpack it first",
    "a.npz": "is a zip archive of weight.npy",
    "a.pt": "is a TorchScript program",
    "": "is a folder",
  }.items():
    with pytest.raises(UserError, match=f"^--from={tmp_path / name}/? {words}"):
      load(str(tmp_path / name))


def test_a_part_of_a_network_is_reported_with_its_own_keys(tmp_path):
  import torch

  from shufflenet_jax.interop.torch_file import load

  torch.save({k: v for k, v in weights().items() if k.startswith("features.0.")}, tmp_path / "f.pth")
  with pytest.raises(UserError, match="saw .* keys: features.0.branch_main_1.0.weight"):
    torch_layouts.recognise(load(str(tmp_path / "f.pth")))
