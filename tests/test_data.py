"""Streams: exactly once, the same after a resume, the same whatever the number of processes."""

import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from shufflenet_jax.data import datasets, pipeline
from shufflenet_jax.errors import UserError


def open_digits(config, name):
  return datasets.open_split("digits", config.data.data_dir, name, 10)


def batches(config, start_step=0, seed=0, process=(0, 1), batch_size=64):
  split = open_digits(config, "train")
  return pipeline.train_batches(
    split, config.data, batch_size=batch_size, num_classes=10, seed=seed, start_step=start_step, process=process
  )


def assert_same(a, b):
  for key in a | b:
    np.testing.assert_array_equal(a[key], b[key])


def test_digits_are_scikit_learns_each_in_one_split(config):
  source = load_digits()
  expected = sorted(
    (int(t), np.round(i * 255 / 16).astype(np.uint8).tobytes()) for i, t in zip(source.images, source.target)
  )
  seen, sizes = [], {}
  for name in ("train", "test"):
    split = open_digits(config, name)
    examples = list(pipeline.raw_examples(split).as_numpy_iterator())
    sizes[name] = np.bincount([label for _, _, label in examples], minlength=10)
    seen += [(int(label), image[..., 0].tobytes()) for _, image, label in examples]
  assert sorted(seen) == expected
  np.testing.assert_array_equal(sizes["test"], (sizes["train"] + sizes["test"]) // 5)


def test_every_epoch_holds_every_example_once(config):
  n = open_digits(config, "train").num_examples
  ids = np.concatenate([b["id"] for b in itertools.islice(batches(config), 3 * n // 64 + 1)])
  epochs = ids[: 3 * n].reshape(3, n)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
  assert not (epochs[0] == epochs[1]).all()
  assert not (epochs[0] == np.arange(n)).all()


@pytest.mark.parametrize("start_step", [1, 22, 40])  # within the first epoch, at its end, beyond it
def test_resumes_at_a_step_bit_for_bit(config, start_step):
  expected = next(itertools.islice(batches(config), start_step, None))
  assert_same(next(batches(config, start_step)), expected)


def test_is_a_function_of_the_seed(config):
  first, again, other = (next(batches(config, seed=s)) for s in (0, 0, 1))
  assert_same(first, again)
  assert not (first["id"] == other["id"]).all()


def test_augmentation_differs_between_epochs(config):
  n = open_digits(config, "train").num_examples
  by_id = [dict(zip(b["id"].tolist(), b["image"])) for b in itertools.islice(batches(config, batch_size=n), 2)]
  pairs = [(by_id[0][i], by_id[1][i]) for i in range(50)]
  assert sum((a == b).all() for a, b in pairs) < 25  # 8x8 pixels have few distinct crops


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batch(config, count):
  whole = next(batches(config, 30))
  parts = [next(batches(config, 30, process=(p, count))) for p in range(count)]
  assert_same({k: np.concatenate([p[k] for p in parts]) for k in whole}, whole)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 100), (4, 100), (8, 800), (2, 64)])
def test_evaluation_sees_every_example_once(config, count, batch_size):
  split = open_digits(config, "test")
  streams = [
    list(pipeline.eval_batches(split, config.data, batch_size=batch_size, num_classes=10, process=(p, count)))
    for p in range(count)
  ]
  assert len({len(s) for s in streams}) == 1
  assert {b["image"].shape[0] for s in streams for b in s} == {batch_size // count}
  ids = np.concatenate([b["id"][b["mask"]] for s in streams for b in s])
  np.testing.assert_array_equal(np.sort(ids), np.arange(split.num_examples))


class Tiny(tfds.core.GeneratorBasedBuilder):
  """Three pictures, one of each class."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Image(shape=(40, 60, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(3)}

  def _generate_examples(self, count):
    for i in range(count):
      yield i, {"image": np.full((40, 60, 3), 80 * i, np.uint8), "label": i}


@pytest.fixture
def tiny(data_dir):
  tfds.disable_progress_bar()
  Tiny(data_dir=data_dir).download_and_prepare()
  return data_dir


def test_any_dataset_by_name_with_split_expressions(tiny, config):
  split = datasets.open_split("tiny", tiny, "train[1:]", 3)
  batch = next(pipeline.eval_batches(split, config.data, batch_size=2, num_classes=3))
  assert sorted(batch["label"]) in ([0, 1], [0, 2], [1, 2])
  assert batch["image"].shape == (2, 32, 32, 3)


def test_a_label_out_of_range_is_named(tiny, config):
  split = datasets.open_split("tiny", tiny, "train", 3)
  with pytest.raises(UserError, match="label 2 of example .* is out of range for num_classes=2"):
    list(pipeline.eval_batches(split, config.data, batch_size=3, num_classes=2))


@pytest.mark.parametrize(
  ("name", "split", "num_classes", "message"),
  [
    (
      "imagenet2012",
      "train",
      1000,
      "'imagenet2012' is not in .*; prepare it with: .* build imagenet2012",
    ),
    ("imagnet2012", "train", 1000, "did you mean imagenet2012"),
    ("tiny", "test", 3, "no split 'test'; it has train"),
    ("tiny", "train[:0]", 3, r"split 'train\[:0\]' of dataset 'tiny' is empty"),
    ("tiny", "train", 2, "has 3 classes, the network num_classes=2; set --config.model.num_classes=3"),
  ],
)
def test_bad_datasets_in_one_line(tiny, name, split, num_classes, message):
  with pytest.raises(UserError, match=message):
    datasets.open_split(name, tiny, split, num_classes)
