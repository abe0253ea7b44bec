"""scikit-learn's bundled handwritten digits as a TFDS dataset: real data that needs no network."""

import contextlib
import io
import shutil
import tempfile

import numpy as np
import tensorflow_datasets as tfds

from shufflenet_jax import storage

_MARKER = "dataset_info.json"  # without which a folder is no dataset to TFDS


class Digits(tfds.core.GeneratorBasedBuilder):
  """1,797 real 8x8 grayscale digits; the fifth of each class that is held out never changes."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Optical recognition of handwritten digits (UCI), as bundled with scikit-learn.",
      homepage="https://archive.ics.uci.edu/dataset/80",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing to download
    return {"train": self._generate_examples(test=False), "test": self._generate_examples(test=True)}

  def _generate_examples(self, test: bool):
    from sklearn.datasets import load_digits  # a second to import, and only preparing needs it

    digits = load_digits()
    seen = np.zeros(10, int)
    for index, (image, label) in enumerate(zip(digits.images, digits.target)):
      # Stratified and fixed: every fifth example of each class is held out.
      held_out = seen[label] % 5 == 4
      seen[label] += 1
      if held_out == test:
        pixels = np.round(image * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
        yield index, {"image": pixels[..., None], "label": int(label)}


def prepare(data_dir: str) -> None:
  """Makes the dataset in `data_dir`, local or in a bucket, unless it is there.

  Raises:
    Refused, Unavailable: that cannot be told, or written.
  """
  folder = storage.join(data_dir, "digits", str(Digits.VERSION))
  marker = storage.join(folder, _MARKER)
  if storage.is_file(marker):
    return
  tfds.disable_progress_bar()  # it takes half a second
  try:
    with storage.new_folder(folder, marker=_MARKER) as inside, tempfile.TemporaryDirectory() as temporary:
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS would speak of downloads, and of a temporary folder
        builder = Digits(data_dir=temporary)
        builder.download_and_prepare()
      shutil.copytree(builder.data_path, inside)
  except storage.Refused:
    if not storage.is_file(marker):  # by another process of the run, at the same time
      raise
