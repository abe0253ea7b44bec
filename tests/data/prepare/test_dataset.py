"""Every picture once, with its own label, whatever it comes from and however often the work was stopped."""

import fcntl
import os
import unicodedata
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.data.stream import evaluation
from shufflenet_jax.errors import UserError
from tests.pictures import picture, put
from tests.preparation import examples, files, stop_at, tar, tar_of, with_
from tests.streams import open_tfds


def test_a_folder_becomes_a_dataset_of_the_same_bytes(options, photos, capsys):
  put(photos / "train/rose/.hidden.jpg", b"")
  put(photos / "train/rose/notes.txt", b"")
  folder = prepare(options)
  assert folder == os.path.join(options.to, "flowers", "1.0.0")
  for split, source in (("train", photos / "train"), ("validation", photos / "val")):
    pictures = [p for p in source.rglob("*.*g") if not p.name.startswith(".")]
    expected = {str(p.relative_to(source)): (p.read_bytes(), p.relative_to(source).parts[0]) for p in pictures}
    assert examples(options, split) == expected
  assert not os.path.exists(f"{folder}.incomplete")
  told = capsys.readouterr().out
  assert "ignored 1 files that are not pictures in a class folder, rose/notes.txt first" in told
  assert "train: 20 pictures, 2 classes of 10 to 10, 16 shards" in told
  assert "--config.data.name=flowers" in told
  assert "--config.model.num_classes=2" in told


def test_the_pipelines_read_it(options, config):
  prepare(options)
  split = open_tfds(options.name, options.to, "validation", 2)
  [batch] = evaluation.eval_batches(split, config.data, batch_size=4, num_classes=2)
  assert batch["mask"].all()
  assert sorted(batch["label"]) == [0, 0, 1, 1]


def test_records_have_their_fields_in_order(options):
  """Else another process, after a stop, would write other bytes for the same."""
  folder = prepare(options)
  for path in Path(folder).glob("*.tfrecord*"):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      assert record == tf.train.Example.FromString(record).SerializeToString(deterministic=True)


def test_records_are_shuffled_over_the_split(options):
  prepare(options)
  names = list(examples(options))
  assert sorted(names) != names
  assert {name[0] for name in names[:6]} == {"d", "r"}


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_gives_the_same_shards_as_the_folder(options, photos, tmp_path, prefix):
  for split in ("train", "val"):
    hidden = {f"{prefix}._rose": b"", f"{prefix}rose/._1.jpg": b"as macOS adds them"}
    tar(tmp_path / f"{split}.tar", tar_of(photos / split, prefix) | hidden)
  of_tar = with_(options, train=f"{tmp_path}/train.tar", validation=f"{tmp_path}/val.tar", to=f"{tmp_path}/of_tar")
  assert files(prepare(of_tar)) == files(prepare(options))


def test_goes_on_after_a_stop_and_gives_the_same_bytes(options, tmp_path, monkeypatch, capsys):
  options = with_(options, shards=5)
  expected = files(prepare(with_(options, to=f"{tmp_path}/at_once")))
  stop_at(monkeypatch, 12, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    prepare(options)
  monkeypatch.undo()
  work = Path(options.to, "flowers", "1.0.0.incomplete")
  with pytest.raises(tfds.core.registered.DatasetNotFoundError):
    tfds.core.read_only_builder.builder_from_files("flowers", data_dir=options.to)
  assert not [p.name for p in work.iterdir() if p.name.endswith(".partial")]
  kept = {p.name: p.stat().st_mtime_ns for p in work.glob("*.tfrecord*")}
  assert 1 <= len(kept) <= 9
  (work / f"{max(kept)}.partial").write_bytes(b"left by a kill")
  (work / min(kept)).write_bytes(b"cut short by a crash")
  capsys.readouterr()
  folder = Path(prepare(options))
  assert f"{len(kept) - 1} of 9 shards were already complete" in capsys.readouterr().out
  assert files(folder) == expected
  for name, written_at in kept.items():
    assert (folder.joinpath(name).stat().st_mtime_ns == written_at) == (name != min(kept))


def test_validation_classes_may_be_spelt_otherwise(options, photos):
  """Composed accents in one split and decomposed ones in the other, as where one of them came from a Mac."""
  for split, form in (("train", "NFC"), ("val", "NFD")):
    (photos / split / "rose").rename(photos / split / unicodedata.normalize(form, "rosé"))
    put(photos / split / "aster/0.jpg", picture())  # so that no class has the place that it has in a list of both
  prepare(options)
  labels = [label for _, label in examples(options, "validation", 3).values()]
  assert sorted(labels) == ["aster", "daisy", "daisy", "ros\u00e9", "ros\u00e9"]


def test_another_plan_is_refused(options, photos, monkeypatch, capsys):
  stop_at(monkeypatch, 12, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    prepare(options)
  monkeypatch.undo()
  work = Path(options.to, "flowers", "1.0.0.incomplete")
  before = files_of_tree(work)
  with pytest.raises(UserError, match="other pictures or flags: pictures: as they came then, short side 16, .* now"):
    prepare(with_(options, short_side=16))
  with pytest.raises(UserError, match="train shards: 16 then, 3 now"):
    prepare(with_(options, shards=3))
  assert files_of_tree(work) == before
  folder = prepare(options)
  before = files_of_tree(folder)
  assert prepare(options) == folder
  assert "is already complete and made from the same pictures: nothing to do" in capsys.readouterr().out
  (photos / "val/rose/0.jpg").rename(photos / "val/rose/7.jpg")
  with pytest.raises(UserError, match="begun with other pictures or flags: validation names and sizes: sha256 "):
    prepare(options)
  assert files_of_tree(folder) == before


def files_of_tree(folder):
  return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_a_dataset_of_somebody_else_is_left_alone(options):
  put(Path(options.to, "flowers/1.0.0/dataset_info.json"), b"theirs")
  with pytest.raises(UserError, match="exists and was not made by this command"):
    prepare(options)
  assert files(Path(options.to, "flowers/1.0.0")) == {"dataset_info.json": b"theirs"}


def test_two_runs_at_a_time_are_kept_apart(options):
  work = Path(options.to, "flowers/1.0.0.incomplete")
  work.mkdir(parents=True)
  held = os.open(work, os.O_RDONLY)
  try:
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process is writing to .*1.0.0.incomplete; wait for it"):
      prepare(options)
  finally:
    os.close(held)
