"""What a picture is: the right pixels of every format, or a refusal that names it; the same in every command."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shufflenet_jax.data import picture_formats, pictures
from shufflenet_jax.data.picture_formats import PictureError
from shufflenet_jax.data.prepare import recode
from shufflenet_jax.data.prepare.dataset import prepare
from shufflenet_jax.data.stream import augment
from shufflenet_jax.errors import UserError
from tests.pictures import picture, put
from tests.preparation import examples, with_

HEIGHT, WIDTH = 20, 26  # rows of a bitmap are padded to four bytes: of 26 pixels, at most depths
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH]
INDEX = ((_X + 2 * _Y) % 16).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
PALETTED = COLOURS[INDEX]
SMOOTH = np.stack([_X * 9, _Y * 12, (_X + _Y) * 5], -1).astype(np.uint8)


def saved(image, kind, **options) -> bytes:
  buffer = io.BytesIO()
  (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
  return buffer.getvalue()


def bitmap(bits, rows, colours=b"", compression=0, height=HEIGHT):
  """A BMP of `rows`, (h, bytes) or compressed."""
  if not isinstance(rows, bytes):
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1].tobytes()
  begin = 14 + 40 + len(colours)
  header = struct.pack("<2sIHHI", b"BM", begin + len(rows), 0, 0, begin)
  header += struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(rows), 0, 0, len(colours) // 4, 0)
  return header + colours + rows


def indexed() -> Image.Image:
  image = Image.fromarray(INDEX, "L").convert("P")
  image.putpalette(COLOURS.tobytes())
  return image


BGRX = b"".join(bytes([*colour[::-1], 0]) for colour in COLOURS)
TRANSPARENT = np.dstack([SMOOTH, (_X * 9).astype(np.uint8)])
BITS_1 = (INDEX > 7).astype(np.uint8)
ALL = {
  "BMP of 8 bits": (bitmap(8, INDEX, BGRX), PALETTED),
  "BMP of 4 bits": (bitmap(4, INDEX[:, ::2] << 4 | INDEX[:, 1::2], BGRX[:64]), PALETTED),
  "BMP of 1 bit": (bitmap(1, np.packbits(BITS_1, axis=1), BGRX[:8]), COLOURS[BITS_1]),
  "BMP of 24 bits": (bitmap(24, SMOOTH[..., ::-1].reshape(HEIGHT, -1)), SMOOTH),
  "BMP from top to bottom": (bitmap(24, SMOOTH[::-1, :, ::-1].reshape(HEIGHT, -1), height=-HEIGHT), SMOOTH),
  "BMP with alpha": (saved(TRANSPARENT, "BMP"), SMOOTH),
  "BMP, compressed": (
    bitmap(8, b"".join(bytes(np.insert(row, range(WIDTH), 1)) + b"\0\0" for row in INDEX[::-1]) + b"\0\1", BGRX, 1),
    PALETTED,
  ),
  "GIF": (saved(indexed(), "GIF"), PALETTED),
  "GIF with a transparent colour": (saved(indexed(), "GIF", transparency=5), PALETTED),
  "GIF with two frames": (saved(indexed(), "GIF", save_all=True, append_images=[indexed().rotate(90)]), PALETTED),
  "PNG": (saved(SMOOTH, "PNG"), SMOOTH),
  "PNG with a palette": (saved(indexed(), "PNG", transparency=bytes(range(256))), PALETTED),
  "PNG with alpha": (saved(TRANSPARENT, "PNG"), SMOOTH),
  "PNG of 16 bits": (tf.io.encode_png(SMOOTH.astype(np.uint16) * 256 + 77).numpy(), SMOOTH),
  "WebP, lossless": (saved(SMOOTH, "WEBP", lossless=True), SMOOTH),
  "WebP with alpha": (saved(TRANSPARENT, "WEBP", lossless=True, exact=True), SMOOTH),
  "WebP with two frames": (
    saved(SMOOTH, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(SMOOTH[::-1])]),
    SMOOTH,
  ),
}


def of_cmyk(is_inverted: bool) -> tuple[bytes, np.ndarray]:
  """A CMYK JPEG as Photoshop writes it, inverted and with its marker, or as others do."""
  ink = np.dstack([255 - SMOOTH, np.zeros((HEIGHT, WIDTH), np.uint8)])
  encoded = saved(Image.fromarray(ink if is_inverted else 255 - ink, "CMYK"), "JPEG", quality=100)
  begin = encoded.index(b"\xff\xee")  # the marker, which Pillow always writes
  end = begin + 2 + int.from_bytes(encoded[begin + 2 : begin + 4], "big")
  return (encoded if is_inverted else encoded[:begin] + encoded[end:]), SMOOTH


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_has_the_pixels_that_were_put_in(kind):
  encoded, expected = ALL[kind]
  np.testing.assert_array_equal(pictures.decode(tf.constant(encoded)), expected)
  [in_a_stream] = tf.data.Dataset.from_tensors(encoded).map(pictures.decode)
  np.testing.assert_array_equal(in_a_stream, expected)
  np.testing.assert_array_equal(picture_formats.pixels(encoded), expected)
  pictures.check(encoded)
  assert picture_formats.is_picture(encoded[: picture_formats.HEAD_BYTES])


@pytest.mark.parametrize(
  "options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}, {"mode": "L"}], ids=str
)
def test_jpegs_have_the_same_pixels_with_and_without_tensorflow(options):
  encoded = picture(61, 83, **options)
  np.testing.assert_array_equal(picture_formats.pixels(encoded), pictures.decode(tf.constant(encoded)))


@pytest.mark.parametrize("is_inverted", [True, False])
def test_cmyk_is_inverted_only_where_it_says_so(is_inverted):
  encoded, expected = of_cmyk(is_inverted)
  crop = augment.random_crop_of_jpeg(tf.constant(encoded), 8, 0.99, 2.0, tf.constant([0, 0]))
  for found in (pictures.decode(tf.constant(encoded)), picture_formats.open_image(encoded)):
    assert np.abs(np.asarray(found, float) - expected).mean() < 4
  assert np.abs(np.mean(crop, (0, 1)) - expected.mean((0, 1))).max() < 12


def test_a_gif_whose_first_frame_is_a_part_fills_the_whole():
  encoded = bytearray(ALL["GIF"][0])
  encoded[6:10] = struct.pack("<HH", WIDTH + 4, HEIGHT + 2)
  image = pictures.decode(tf.constant(bytes(encoded))).numpy()
  assert image.shape == (HEIGHT + 2, WIDTH + 4, 3)
  np.testing.assert_array_equal(image[:HEIGHT, :WIDTH], PALETTED)


@pytest.mark.parametrize(
  ("encoded", "words"),
  [
    (lambda: saved(SMOOTH, "TIFF"), "it is TIFF, not JPEG, PNG, BMP, GIF, WebP"),
    (lambda: saved(SMOOTH, "PPM"), "it is PPM, not JPEG"),
    (lambda: saved(SMOOTH, "JPEG2000"), "it is JPEG2000, not JPEG"),
    (lambda: b"\0\0\0\x18ftypheic" + bytes(50), "it is HEIC, not JPEG"),
    (lambda: b"", "the file is empty"),
    (lambda: b"<svg>no picture</svg>", "it is none of JPEG, PNG, BMP, GIF, WebP"),
    (lambda: picture(200, 300)[:-2000], "truncated"),
    (lambda: saved(SMOOTH, "PNG")[:-12], "TensorFlow cannot decode it, though Pillow can"),  # only its end is missing
    (lambda: saved(SMOOTH, "PNG")[:-30] + b"spoilt" + saved(SMOOTH, "PNG")[-24:], "broken data"),
    (lambda: saved(SMOOTH, "BMP")[:-100], "truncated"),
    (lambda: bitmap(32, bytes(HEIGHT * WIDTH * 4), struct.pack("<III", 15, 240, 3840), 3), "bitfields"),
  ],
)
def test_what_cannot_be_decoded_says_why(encoded, words):
  encoded = encoded()
  for refuses in (pictures.check, pictures.decode_file):
    with pytest.raises(PictureError, match=words):
      refuses(encoded)
  with pytest.raises(tf.errors.InvalidArgumentError):
    pictures.decode(tf.constant(encoded))
  for upright in (True, False):
    with pytest.raises(PictureError):
      recode.shrink(encoded, 256, 90, upright)


def test_bytes_after_the_end_are_no_fault_but_a_thumbnails_end_is_no_end():
  pictures.check(picture() + bytes(5000))
  cut = picture(200, 300)[:-2000]
  with pytest.raises(PictureError, match="truncated"):
    pictures.check(cut[:2] + b"\xff\xe1\x00\x04\xff\xd9" + cut[2:])


@pytest.mark.parametrize("short_side", [None, 16, 100])
def test_what_prepare_takes_can_be_trained_on(options, photos, short_side):
  """Byte for byte, made smaller, and left because it is small."""
  for i, (encoded, _) in enumerate(ALL.values()):
    put(photos / f"train/rose/all_{i}.png", encoded)
  prepare(with_(options, short_side=short_side))
  seen = examples(options)
  for i, (_, expected) in enumerate(ALL.values()):
    image = pictures.decode(tf.constant(seen[f"rose/all_{i}.png"][0])).numpy()
    assert image.shape == ((16, 21, 3) if short_side == 16 else expected.shape)
    assert np.abs(image.mean((0, 1)) - expected.mean((0, 1))).max() < 5
  put(photos / "train/rose/no_end.png", saved(SMOOTH[:15, :15], "PNG")[:-12])
  with pytest.raises(UserError, match="1 pictures cannot be decoded: rose/no_end.png: TensorFlow cannot decode it"):
    prepare(with_(options, short_side=short_side, to=f"{options.to}/again"))
