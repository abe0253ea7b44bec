"""A dataset in a bucket, copied to this machine with the real client."""

import pytest

from shufflenet_jax import storage
from shufflenet_jax.data import needed_files, staging
from shufflenet_jax.data.sources import digits
from shufflenet_jax.errors import RunFailed, UserError
from tests.bucket.faults import Fault, corrupt, cut, status

SHARD = "digits-train.tfrecord"


@pytest.fixture
def dataset(here, config):
  """The digits in a bucket, with a second dataset beside them."""
  config.data.data_dir = f"{here.url}/datasets"
  digits.prepare(config.data.data_dir)
  here.put("datasets/other/1.0.0/dataset_info.json", b"{}")
  return config


def stage(config, tmp_path):
  staging.stage(needed_files.of_config(config), str(tmp_path / "copy"))


def assert_whole(here, tmp_path):
  names = here.names("datasets/digits/")
  assert {name for name, _ in storage.walk(str(tmp_path / "copy"))} == {
    staging.MANIFEST, *(name.removeprefix("datasets/") for name in names)
  }  # fmt: skip
  for name in names:
    assert storage.read_bytes(f"{tmp_path}/copy/{name.removeprefix('datasets/')}") == here.get(name)


def test_a_copy_is_made_once_and_again_when_an_object_was_replaced(here, dataset, tmp_path, capsys):
  stage(dataset, tmp_path)
  assert_whole(here, tmp_path)
  before = len([r for r in here.records.all() if r.operation == "read"])
  stage(dataset, tmp_path)
  assert "nothing to copy" in capsys.readouterr().out
  read_again = [r.name for r in here.records.all() if r.operation == "read"][before:]
  assert not any(".tfrecord" in name for name in read_again)
  [name] = [name for name in here.names("datasets/digits/") if SHARD in name]
  here.put(name, bytes(len(here.get(name))))
  stage(dataset, tmp_path)
  assert_whole(here, tmp_path)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("effect", [corrupt(200), cut(1000), status(503)])
def test_a_download_that_fails_once_is_repeated(here, dataset, tmp_path, monkeypatch, effect, at_once):
  if not at_once:
    monkeypatch.setattr("shufflenet_jax.storage.bucket.AT_ONCE_BYTES", 0)
  here.faults.add(fault := Fault(effect, {"read"}, name=SHARD, times=1))
  stage(dataset, tmp_path)
  assert fault.struck == 1
  assert_whole(here, tmp_path)


def test_bytes_that_do_not_match_the_checksum_are_never_a_copy(here, dataset, tmp_path):
  here.faults.add(Fault(corrupt(200), {"read"}, name=SHARD))
  with pytest.raises(RunFailed, match=f"{SHARD}.* cannot be read now .DataCorruption.; run the same command again"):
    stage(dataset, tmp_path)
  assert not (tmp_path / "copy").exists()
  here.faults.clear()
  stage(dataset, tmp_path)
  assert_whole(here, tmp_path)


def test_an_object_that_is_replaced_meanwhile_is_not_mixed_in(here, dataset, tmp_path):
  needed = needed_files.of_config(dataset)
  [name] = [name for name in here.names("datasets/digits/") if SHARD in name]
  here.put(name, bytes(len(here.get(name))))
  with pytest.raises(RunFailed, match=f"{SHARD}.* was removed or replaced while it was copied; run the same command"):
    staging.stage(needed, str(tmp_path / "copy"))
  assert not (tmp_path / "copy").exists()


def test_wrong_buckets(here, config, tmp_path):
  config.data.data_dir = f"{here.url}-absent/datasets"
  with pytest.raises(UserError, match=f"there is no bucket {here.url}-absent"):
    stage(config, tmp_path)
  config.data.name, config.data.data_dir = "imagenet2012", f"{here.url}/datasets"
  with pytest.raises(UserError, match="dataset 'imagenet2012' is not in .*; prepare it with: "):
    stage(config, tmp_path)
  config.data.name = "digits"
  with pytest.raises(UserError, match="must be a folder of this machine"):
    staging.stage(needed_files.of_config(config), f"{here.url}/copy")
