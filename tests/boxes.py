"""A small dataset of pictures with boxes, and the config of a small detector for it."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import boxes
from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.data.prepare.options import Options

NAMES = ("red", "green", "blue")


def _scene(random, height, width, num_boxes):
  """Coloured rectangles on gray noise: (uint8 picture (h, w, 3), [(label, COCO's bbox)])."""
  image = random.integers(90, 120, (height, width, 3)).astype(np.uint8)
  objects = []
  for _ in range(num_boxes):
    h, w = random.integers(12, height // 2), random.integers(12, width // 2)
    y, x, label = random.integers(0, height - h), random.integers(0, width - w), random.integers(0, 3)
    image[y : y + h, x : x + w] = 20
    image[y : y + h, x : x + w, label] = 230
    objects.append((int(label), [int(x), int(y), int(w), int(h)]))
  return image, objects


def write_scenes(folder, split, count, seed):
  """COCO's layout: pictures of several sizes with 0 to 3 rectangles, and a crowd in the second; returns the JSON."""
  random, images, annotations = np.random.default_rng(seed), [], []
  (folder / split).mkdir(parents=True)
  for i in range(count):
    height, width = (60, 80) if i % 3 else (96, 64)
    image, objects = _scene(random, height, width, i % 4)
    Image.fromarray(image).save(folder / split / f"{i}.png")
    images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
    for label, bbox in objects:
      fields = {"id": len(annotations), "image_id": i, "category_id": label + 1, "bbox": bbox}
      annotations.append(fields | {"area": bbox[2] * bbox[3], "iscrowd": int(i == 1)})
  path = folder / "annotations" / f"instances_{split}.json"
  path.parent.mkdir(exist_ok=True)
  categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
  path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
  return str(path)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
  """The folder of a dataset `scenes`: 12 training and 5 validation pictures. Beside it, those in COCO's layout."""
  folder = tmp_path_factory.mktemp("scenes")
  train, validation = write_scenes(folder, "train", 12, 0), write_scenes(folder, "validation", 5, 1)
  prepare(Options("scenes", train, validation, str(folder / "tfds")))
  return folder / "tfds"


@pytest.fixture
def detector(scenes):
  """The config of a small detector, to be trained for 6 steps on `scenes`."""
  config = boxes.get_config("scale=0.25")
  config.model.repeats = (1, 1, 1)
  config.model.num_classes = 3
  config.data.name, config.data.data_dir = "scenes", str(scenes)
  config.data.short_side, config.data.long_side = 48, 64
  config.data.image_size = config.data.eval_resize = 64
  config.detection.anchor_sizes = (16, 32)
  config.detection.rois, config.detection.proposals = 16, 20
  config.num_train_steps, config.batch_size, config.eval_batch_size = 6, 4, 4
  config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps = 2, 3, 3
  config.optimizer.warmup_steps = 2
  return config
