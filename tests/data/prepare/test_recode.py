"""Pictures made smaller: only larger ones, with their colours, as evaluation would have made them."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from shufflenet_jax.data.prepare import recode
from shufflenet_jax.data.prepare.dataset import prepare
from tests.pictures import opened, picture, put
from tests.preparation import examples, with_


def test_only_larger_pictures_shrink_and_to_the_short_side(options, photos):
  put(photos / "train/rose/large.jpg", picture(90, 61))
  put(photos / "train/rose/large.png", picture(48, 100, kind="PNG"))
  prepare(with_(options, short_side=24, quality=70))
  seen = examples(options)
  assert opened(seen["rose/large.jpg"][0]).size == (24, 35)  # 90 * 24 / 61 = 35.4
  assert opened(seen["rose/large.png"][0]).size == (50, 24)
  assert opened(seen["rose/large.png"][0]).format == "JPEG"
  assert seen["rose/1.jpg"][0] == (photos / "train/rose/1.jpg").read_bytes()
  assert seen["rose/old/1.png"][0] == (photos / "train/rose/old/1.png").read_bytes()
  description = tfds.core.read_only_builder.builder_from_files("flowers", data_dir=options.to).info.description
  assert "short side above 24 pixels" in description
  assert "JPEG of quality 70 with 4:2:0 chroma" in description


@pytest.mark.parametrize(
  ("kind", "mode", "expected"),
  [
    ("JPEG", "RGB", "RGB"),
    ("JPEG", "CMYK", "RGB"),
    ("JPEG", "L", "L"),
    ("PNG", "RGBA", "RGB"),
    ("PNG", "LA", "L"),
    ("PNG", "P", "RGB"),
    ("PNG", "1", "L"),
    ("GIF", "P", "RGB"),
    ("WEBP", "RGBA", "RGB"),
    ("BMP", "RGB", "RGB"),
  ],
)
def test_every_kind_of_picture_keeps_its_colours(kind, mode, expected):
  encoded = picture(80, 120, kind, mode)
  small = opened(recode.shrink(encoded, 40, 95, upright=False))
  assert (small.format, small.mode, small.size) == ("JPEG", expected, (60, 40))
  # TensorFlow, which would have read the original, is the judge.
  whole = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  judge = tf.image.resize(whole, (40, 60), antialias=True).numpy()
  assert np.abs(np.asarray(small.convert("RGB"), float) - judge).mean() < (9 if mode == "1" else 4)


def test_sixteen_bits_keep_the_upper_eight():
  values = np.linspace(0, 65535, 80 * 120).reshape(80, 120).astype(np.uint16)
  small = opened(recode.shrink(tf.io.encode_png(values[..., None]).numpy(), 40, 95, upright=False))
  assert small.mode == "L"
  judge = tf.image.resize((values >> 8)[..., None], (40, 60), antialias=True).numpy()[..., 0]
  assert np.abs(np.asarray(small, float) - judge).mean() < 2


def test_transparent_palettes_shrink_without_a_warning():
  image = Image.fromarray(np.arange(80 * 120, dtype=np.uint8).reshape(80, 120)).convert("P")
  buffer = io.BytesIO()
  image.save(buffer, "PNG", transparency=bytes(range(256)))
  assert opened(recode.shrink(buffer.getvalue(), 40, 90, upright=False)).mode == "RGB"


def test_shrinks_as_evaluation_does():
  from shufflenet_jax.data import pictures
  from shufflenet_jax.data.stream import augment

  encoded = picture(97, 143, "PNG")
  small = np.asarray(opened(recode.shrink(encoded, 40, 100, upright=False)), float)
  judge = augment.resize_short_side(pictures.decode(encoded), 40, antialias=True).numpy()
  assert small.shape == judge.shape
  assert np.abs(small - judge).mean() < 2


@pytest.mark.parametrize("height", [80, 20])
def test_orientation_is_baked_in_only_when_asked(height):
  exif = Image.Exif()
  exif[0x0112] = 6  # the right side of the scene is stored on top
  encoded = picture(height, 120, exif=exif)
  plain = opened(recode.shrink(encoded, 40, 95, upright=False))
  turned = opened(recode.shrink(encoded, 40, 95, upright=True))
  assert plain.size == ((60, 40) if height == 80 else (120, 20))
  assert turned.size == plain.size[::-1]
  assert turned.getexif().get(0x0112, 1) == 1  # else a viewer would turn it again
  expected = np.rot90(np.asarray(plain, float), -1)
  assert np.abs(np.asarray(turned, float) - expected).mean() < 5
