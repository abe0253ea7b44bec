"""scikit-learn's bundled handwritten digits as a TFDS dataset: real data that needs no network."""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets

from shufflenet_jax import storage
from shufflenet_jax.data.sources import tfds
from shufflenet_jax.data.split import Split


class Digits(tensorflow_datasets.core.GeneratorBasedBuilder):
  """1,797 real 8x8 grayscale digits; a fifth of each class is held out, always the same fifth."""

  VERSION = tensorflow_datasets.core.Version("1.0.0")

  def _info(self) -> tensorflow_datasets.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Optical recognition of handwritten digits (UCI), as bundled with scikit-learn.",
      homepage="https://archive.ics.uci.edu/dataset/80",
      features=tensorflow_datasets.features.FeaturesDict(
        {
          "image": tensorflow_datasets.features.Image(shape=(8, 8, 1), encoding_format="png"),
          "label": tensorflow_datasets.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing to download
    return {"train": self._generate_examples(test=False), "test": self._generate_examples(test=True)}

  def _generate_examples(self, test: bool):
    from sklearn.datasets import load_digits  # takes a second to import, and only preparing needs it

    digits = load_digits()
    seen = np.zeros(10, int)
    for index, (image, label) in enumerate(zip(digits.images, digits.target)):
      held_out = seen[label] % 5 == 4  # stratified: every fifth example of each class
      seen[label] += 1
      if held_out == test:
        pixels = np.round(image * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
        yield index, {"image": pixels[..., None], "label": int(label)}


def open_split(data, split: str, num_classes: int, class_names: Sequence[str] = (), every_class: bool = False) -> Split:
  """Prepares the dataset if necessary, and opens it; see `sources.open_split`."""
  prepare(tfds.datasets_folder(data.data_dir))
  return tfds.open_split(data, split, num_classes, class_names, every_class)


def prepare(data_dir: str) -> None:
  """Writes the dataset into `data_dir`, local or in a bucket, unless it exists already.

  Raises:
    Refused, Unavailable: the folder cannot be read or written.
  """
  folder = storage.join(data_dir, "digits", str(Digits.VERSION))
  marker = storage.join(folder, tfds.MARKER)
  if storage.is_file(marker):
    return
  tensorflow_datasets.disable_progress_bar()  # preparing takes only half a second
  try:
    with storage.new_folder(folder, marker=tfds.MARKER) as inside, tempfile.TemporaryDirectory() as temporary:
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS would announce downloads and a temporary folder
        builder = Digits(data_dir=temporary)
        builder.download_and_prepare()
      shutil.copytree(builder.data_path, inside)
  except storage.Refused:
    if not storage.is_file(marker):  # otherwise another process of the run has just written it
      raise
