"""Patterns of local paths, compared with `glob.glob`. Patterns in buckets are tested in tests/bucket."""

import glob
import os

import pytest

from shufflenet_jax import storage

NAMES = (
  "a.jpg", "b.JPG", ".hidden.jpg", "cats/a.jpg", "cats/old/b.jpg", "cats/.hidden/c.jpg", "dogs/[x].jpg", "dogs/-.jpg",
  "dogs/z.jpg", "dogs/é.jpg",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Files, and entries at which a reader would wait, fail or never arrive."""
  folder = tmp_path_factory.mktemp("photos")
  for name in NAMES:
    storage.write_bytes(f"{folder}/{name}", b"")
  os.mkfifo(folder / "pipe.jpg")
  (folder / "broken.jpg").symlink_to("none")
  (folder / "loop.jpg").symlink_to("loop.jpg")
  return folder


@pytest.mark.parametrize(
  "pattern",
  ["*", "*.jpg", "*.JPG", ".*", "**", "**/*", "**/*.jpg", "*/*.jpg", "c*/**/*.jpg", "cats/**", "*/old/?.jpg",
   "**/old/*", "*/.hidden/*", "**/.hidden/*", "dogs/[[]x].jpg", "dogs/[!a-y].jpg", "dogs/[z-a].jpg", "dogs/[]z].jpg",
   "dogs/[x", "dogs/[-z].jpg", "none/*", "*/*/*/*", "**.jpg"],
)  # fmt: skip
def test_patterns_match_as_in_glob(photos, pattern):
  expected = sorted(path for path in glob.glob(f"{photos}/{pattern}", recursive=True) if os.path.isfile(path))
  assert storage.glob(f"{photos}/{pattern}") == expected


def test_a_hidden_folder_that_no_pattern_asks_for_need_not_be_listed(photos, monkeypatch):
  scandir = os.scandir

  def refuse_hidden(path):
    if os.path.basename(path).startswith("."):
      raise PermissionError(13, "Permission denied", path)
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse_hidden)
  assert f"{photos}/cats/old/b.jpg" in storage.glob(f"{photos}/**/*.jpg")
  with pytest.raises(storage.Refused):
    storage.glob(f"{photos}/**/.hidden/*.jpg")


def test_a_folder_that_cannot_be_listed_is_not_mistaken_for_an_empty_one(photos, monkeypatch):
  def refuse(path):
    raise PermissionError(13, "Permission denied", path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(storage.Refused, match="Permission denied"):
    storage.glob(f"{photos}/*.jpg")
