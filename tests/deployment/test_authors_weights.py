"""The authors' network, exported, on 200 ImageNet pictures: the answers of its checkpoint, and of the authors."""

import dataclasses

import numpy as np
import pytest

from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.deployment import exporting, network, runtimes
from shufflenet_jax.deployment.predictor import FilePredictor
from shufflenet_jax.prediction.predictor import Predictor

pytestmark = pytest.mark.torch


def answers(predictor, pictures):
  """name -> all classes of a picture, best first: [(name, probability), ...]."""
  predictor.task = dataclasses.replace(predictor.task, top=1000)
  images = [predictor.decode(encoded) for encoded in pictures.values()]
  group = predictor.batch_sizes[-1]
  groups = (predictor.answers(images[i : i + group], group) for i in range(0, len(images), group))
  return dict(zip(pictures, (answer for group in groups for answer in group)))


@pytest.fixture(scope="module")
def expected(authors_checkpoint, imagenet_pictures):
  """The checkpoint's answers."""
  return answers(Predictor(checkpoint.find(authors_checkpoint)), imagenet_pictures)


@pytest.mark.parametrize("suffix", runtimes.SUFFIXES)
def test_files_answer_like_the_checkpoint(authors_checkpoint, imagenet_pictures, expected, tmp_path, suffix):
  path = str(tmp_path / f"net{suffix}")
  exporting.write(network.of_checkpoint(checkpoint.find(authors_checkpoint)), path, exporting.Options())
  found = answers(FilePredictor(path), imagenet_pictures)
  assert len(found) == 200
  right = {1: 0, 5: 0}
  for name, answer in found.items():
    probabilities, others = dict(answer), dict(expected[name])
    assert probabilities.keys() == others.keys()
    np.testing.assert_allclose([probabilities[k] for k in others], list(others.values()), atol=1e-3)
    for top in right:
      right[top] += any(class_name.startswith(name.split("_")[0]) for class_name, _ in answer[:top])
  assert right == pytest.approx({1: 135, 5: 180}, abs=1)  # 67.5 % and 90.0 %, as with the authors' model in PyTorch
