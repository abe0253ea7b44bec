"""The page examples/browser/ in headless Chromium."""

import io
import re

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
from PIL import Image, ImageCms
from scipy.special import softmax

from shufflenet_jax.data import pictures
from shufflenet_jax.data.stream import augment
from tests.examples import onnx_files
from tests.examples.page_actions import answer, problem, upload

pytestmark = pytest.mark.browser

# The two photographs that come with scikit-learn.
PHOTOGRAPHS = {path.rsplit("/", 1)[-1]: path for path in sklearn.datasets.load_sample_images().filenames}


def halves(above, below, **save) -> bytes:
  """A PNG or JPEG picture of two colours."""
  pixels = np.zeros((60, 80, 3), np.uint8)
  pixels[:30], pixels[30:] = above, below
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, **({"format": "PNG"} | save))
  return buffer.getvalue()


RED_ABOVE = halves((255, 0, 0), (0, 0, 0))
BLUE_ABOVE = halves((0, 0, 255), (0, 0, 0))


def test_a_photograph_gets_the_five_classes_that_numpy_computes(page, site):
  page.goto(site.url)
  page.get_by_text("a network with a known answer · 6 classes · 0.1 MB").wait_for()
  for name, path in PHOTOGRAPHS.items():
    page.get_by_label("Picture file").set_input_files(path)
    page.get_by_role("img", name=name).wait_for()
    pixels = augment.center_crop(pictures.decode(tf.io.read_file(path)), 32, 37, True).numpy()
    percent = 100 * softmax(pixels.reshape(-1) @ onnx_files.weights())  # h w c -> hwc
    order = np.argsort(-percent)[:5]
    shown = answer(page)
    assert [name for name, _ in shown] == [onnx_files.CLASSES[i] for i in order]
    np.testing.assert_allclose([p for _, p in shown], percent[order], atol=0.2)
    for time in ("Network", "Preparation"):
      assert re.search(rf"{time}\n\d+\.\d ms\n", page.get_by_text(time, exact=True).locator("..").inner_text())


PIXELS = """async ([name, input]) => {
  const { decode, readable } = await import("/picture.js");
  const { prepare } = await import("/preparation.js");
  const file = await (await fetch(name)).blob();
  return Array.from(prepare(readable(await decode(file, name)), input));
}"""


def largest_difference(page, site, encoded, size, resize, antialias) -> int:
  """Between the page's and Python's pixels of a prepared picture, in levels of 255."""
  (site.folder / "picture").write_bytes(encoded)
  page.goto(f"{site.url}style.css")  # quicker than the page, which loads onnxruntime
  options = {"height": size, "width": size, "resize": resize, "antialias": antialias}
  there = np.array(page.evaluate(PIXELS, ["picture", options])).reshape(size, size, 3)  # hwc -> h w c
  here = augment.center_crop(pictures.decode(tf.constant(encoded)), size, resize, antialias).numpy()
  return np.abs(there - here.astype(int)).max()


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
  ("height", "width", "size", "resize"),
  [
    (375, 500, 224, 256),
    (513, 512, 224, 256),  # the long side is rounded from 256.5 to the even 256
    (101, 260, 32, 37),  # half a pixel remains at each end of both sides
    (20, 30, 32, 32),  # enlarged
    (32, 32, 32, 32),
    (3, 1000, 32, 40),  # longer than 16 times the short side: the ends are ignored
    (1250, 1300, 224, 256),  # read in several strips
  ],
)
def test_pixels_agree_with_tensorflow(page, site, height, width, size, resize, antialias):
  noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  encoded = tf.io.encode_png(noise).numpy()
  assert largest_difference(page, site, encoded, size, resize, antialias) <= 1


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_pixels_of_photographs_agree_with_tensorflow(page, site, name, antialias):
  with open(PHOTOGRAPHS[name], "rb") as file:
    assert largest_difference(page, site, file.read(), 224, 256, antialias) <= 1


def test_colour_profiles_are_ignored(page, site):
  """As in Python. The profile exchanges red and blue."""
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  profile = srgb.replace(b"rXYZ", b"none").replace(b"bXYZ", b"rXYZ").replace(b"none", b"bXYZ")
  page.goto(site.url)
  upload(page, "red.png", halves((255, 0, 0), (0, 0, 0), icc_profile=profile))
  assert answer(page)[0][0] == "red above"


def test_photographs_are_shown_upright(page, site):
  exif = Image.Exif()
  exif[0x0112] = 3  # orientation: upside down
  page.goto(site.url)
  upload(page, "sideways.jpg", halves((255, 0, 0), (0, 0, 255), format="JPEG", exif=exif))
  assert {name for name, _ in answer(page)[:2]} == {"blue above", "red below"}


def test_words_of_imagenets_classes_without_identifiers(page, site):
  classes = ["n01440764 tench, Tinca tinca", "n02123045 tabby, tabby cat", "<b>bold</b>", "d", "e", "f"]
  metadata = onnx_files.metadata(classes=classes)
  (site.folder / "model.onnx").write_bytes(onnx_files.network(metadata_props=metadata))
  page.goto(site.url)
  upload(page, "red.png", RED_ABOVE)
  names = [name for name, _ in answer(page)]
  assert names[0] == "tench\nTinca tinca"
  assert {"tabby tabby cat", "<b>bold</b>", "d"} <= set(names)


def test_large_logits(page, site):
  (site.folder / "model.onnx").write_bytes(onnx_files.network(scale=1e5))
  page.goto(site.url)
  upload(page, "red.png", RED_ABOVE)
  assert answer(page)[0] == ("red above", 100)
  assert {percent for _, percent in answer(page)[1:]} == {0}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, r"There is no model at model.onnx \(status 404\). .*python -m shufflenet_jax.export --checkpoint"),
    (b"", "model.onnx is not an ONNX model, or is incomplete: there is no graph"),
    (b"<!doctype html><html></html>", "model.onnx is not an ONNX model, or is incomplete: a field"),
    (lambda: onnx_files.network()[:1000], "incomplete: a field ends after the end of the file"),
    (lambda: onnx_files.network(metadata_props={}), "an ONNX model that shufflenet_jax did not export: .*export one"),
    (
      lambda: onnx_files.network(metadata_props=onnx_files.metadata(format=2)),
      "model.onnx has format 2, and this page reads format 1. Use the page of the version",
    ),
    (
      lambda: onnx_files.network(metadata_props={onnx_files.KEY: "{"}),
      "The metadata of model.onnx are damaged: .* Export it again:",
    ),
    (lambda: onnx_files.network(last_layer="Unheard"), "onnxruntime-web cannot run model.onnx: .*Unheard"),
    (lambda: onnx_files.network(batch=3), "onnxruntime-web cannot run model.onnx: .*Expected: 3.* Export it again:"),
  ],
)
def test_bad_models(page, site, content, message):
  (site.folder / "model.onnx").unlink()
  if content is not None:
    (site.folder / "model.onnx").write_bytes(content if isinstance(content, bytes) else content())
  page.goto(site.url)
  assert re.search(message, problem(page), re.DOTALL)
  assert page.get_by_role("status").inner_text() == "No model is loaded."

  upload(page, "red.png", RED_ABOVE)
  page.get_by_text("The classes appear here as soon as a model is loaded.").wait_for()
  upload(page, "good.onnx", onnx_files.network(), field="Model file")
  assert answer(page)[0][0] == "red above"
  assert page.get_by_role("alert").count() == 0


def test_the_address_may_name_a_model(page, site):
  (site.folder / "other.onnx").write_bytes(onnx_files.network(metadata_props=onnx_files.metadata(network="other")))
  page.goto(f"{site.url}?model=other.onnx")
  page.get_by_text("other · 6 classes").wait_for()
  page.goto(f"{site.url}?model={site.url}absent.onnx")
  assert f"There is no model at {site.url}absent.onnx" in problem(page)


def test_opened_as_a_file_the_page_asks_for_a_server(page, site):
  page.goto(f"file://{site.folder}/index.html")
  assert page.get_by_text("only from a web server").is_visible()
  page.goto(site.url)
  assert not page.get_by_text("only from a web server").is_visible()


def test_without_onnxruntime_the_command_is_named(page, site):
  (site.folder / "vendor").unlink()
  page.goto(site.url)
  assert re.search("onnxruntime-web cannot be loaded .* Install it there:\nmake browser", problem(page), re.DOTALL)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "notes.jpg is empty. Choose a JPEG, PNG or WebP file."),
    (b"not a picture", "notes.jpg is not a picture that this browser can read. Choose a JPEG, PNG or WebP file."),
    (RED_ABOVE[:60], "notes.jpg is not a picture that this browser can read."),
  ],
)
def test_bad_pictures(page, site, content, message):
  page.goto(site.url)
  upload(page, "notes.jpg", content)
  assert message in problem(page)
  upload(page, "red.png", RED_ABOVE)
  assert answer(page)[0][0] == "red above"
  assert page.get_by_role("alert").count() == 0
  upload(page, "notes.jpg", content)  # the answer to the last good picture remains
  assert message in problem(page)
  assert answer(page)[0][0] == "red above"


def test_a_new_model_is_applied_to_the_picture_that_is_shown(page, site):
  page.goto(site.url)
  upload(page, "red.png", RED_ABOVE)
  assert answer(page)[0][0] == "red above"
  metadata = onnx_files.metadata(classes=["crimson above", *onnx_files.CLASSES[1:]])
  upload(page, "other.onnx", onnx_files.network(metadata_props=metadata), field="Model file")
  page.get_by_text("crimson above").wait_for()
  upload(page, "bad.onnx", b"bad", field="Model file")
  assert "bad.onnx is not an ONNX model" in problem(page)
  upload(page, "blue.png", BLUE_ABOVE)  # with the model that was loaded before
  assert answer(page)[0][0] == "blue above"


DROP = """([name, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


def test_pictures_and_models_may_be_dropped(page, site):
  (site.folder / "model.onnx").unlink()
  page.goto(site.url)
  assert "There is no model" in problem(page)
  page.evaluate(DROP, ["red.png", list(RED_ABOVE)])
  page.get_by_role("img", name="red.png").wait_for()
  page.evaluate(DROP, ["dropped.onnx", list(onnx_files.network())])
  assert answer(page)[0][0] == "red above"


def test_a_picture_from_the_camera(page, site):
  page.context.grant_permissions(["camera"])
  page.goto(site.url)
  for button in ("Take picture", "Close camera"):  # the picture that was taken remains
    page.get_by_role("button", name="Use camera").click()
    page.wait_for_function("document.querySelector('video').srcObject")
    page.evaluate("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    page.get_by_role("button", name=button).click()
    page.get_by_role("img", name="Picture from the camera").wait_for()
    assert {name for name, _ in answer(page)[:2]} == {"blue above", "green below"}
    assert page.evaluate("window.track.readyState") == "ended"


def test_without_permission_for_the_camera(page, site):
  page.goto(site.url)
  page.get_by_role("button", name="Use camera").click()
  assert re.search("does not let this page use the camera. Allow the camera in .* picture file instead", problem(page))
  upload(page, "red.png", RED_ABOVE)
  assert answer(page)[0][0] == "red above"


@pytest.mark.parametrize(
  ("error", "message"),
  [
    ("NotFoundError", "The browser finds no camera. Connect one"),
    ("NotReadableError", "another program may be using it. Close that program"),
    ("AbortError", "The camera does not start: why. Or choose a picture file instead."),
  ],
)
def test_a_camera_that_fails(page, site, error, message):
  failing = f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('why', '{error}'); }}"
  page.add_init_script(failing)
  page.goto(site.url)
  page.get_by_role("button", name="Use camera").click()
  assert message in problem(page)
  assert page.get_by_role("button", name="Use camera").is_visible()


def test_over_plain_http_the_phones_own_camera_is_used(page, site):
  page.goto(site.plain)
  with page.expect_file_chooser() as chooser:
    page.get_by_role("button", name="Use camera").click()
  assert chooser.value.element.get_attribute("capture") == "environment"
  chooser.value.set_files({"name": "image.jpg", "mimeType": "image/png", "buffer": RED_ABOVE})
  assert answer(page)[0][0] == "red above"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(page, site, width):
  page.set_viewport_size({"width": width, "height": 700})
  (site.folder / "model.onnx").unlink()
  page.goto(site.url)
  problem(page)
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  upload(page, "a.onnx", onnx_files.network(metadata_props=onnx_files.metadata(classes=["x" * 90] * 6)), "Model file")
  page.get_by_label("Picture file").set_input_files(PHOTOGRAPHS["china.jpg"])
  answer(page)
  assert page.evaluate("document.documentElement.scrollWidth") <= width
