"""Serves the page examples/browser/ on this machine, and opens it in headless Chromium."""

import functools
import http.server
import shutil
import threading
import types

import numpy as np
import pytest
from PIL import Image

from tests.commands import ROOT
from tests.examples import onnx_files

PAGE = ROOT / "examples" / "browser"
PLAIN_HTTP = "phone.test"  # a name for this machine that the browser does not trust like localhost


class QuietHandler(http.server.SimpleHTTPRequestHandler):
  """The handler of `python -m http.server`, without its log."""

  def log_message(self, *arguments):
    pass


@pytest.fixture
def site(tmp_path):
  """A folder with the page's files and a model, and its `url`; tests may change what is in it."""
  assert (PAGE / "vendor").exists(), "needs onnxruntime-web: make browser"
  folder = tmp_path / "site"
  folder.mkdir()
  for path in PAGE.iterdir():
    if path.suffix != ".onnx" and path.name != "node_modules":
      (folder / path.name).symlink_to(path)
  (folder / "model.onnx").write_bytes(onnx_files.network())
  handler = functools.partial(QuietHandler, directory=folder)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    port = server.server_port
    yield types.SimpleNamespace(folder=folder, url=f"http://localhost:{port}/", plain=f"http://{PLAIN_HTTP}:{port}/")
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def camera_picture(tmp_path_factory):
  """What the browser's camera shows: an endless film of one picture, with blue above and green below."""
  path = tmp_path_factory.mktemp("camera") / "film.mjpeg"
  pixels = np.zeros((480, 640, 3), np.uint8)
  pixels[:240, :, 2] = pixels[240:, :, 1] = 255
  Image.fromarray(pixels).save(path, "JPEG", quality=95)
  return path


@pytest.fixture(scope="module")
def chromium(camera_picture):
  from playwright.sync_api import sync_playwright

  program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
  assert program, "needs Chromium: apt-get install chromium"
  arguments = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    f"--use-file-for-fake-video-capture={camera_picture}", f"--host-resolver-rules=MAP {PLAIN_HTTP} 127.0.0.1",
  ]  # fmt: skip
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=program, args=arguments)
    yield browser
    browser.close()


@pytest.fixture
def page(chromium, site):
  """A window of a phone's size; the test fails if the page raises an error or asks another server for anything."""
  context = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
  context.set_default_timeout(30_000)
  page = context.new_page()
  errors, addresses = [], []
  page.on("pageerror", lambda error: errors.append(error))
  page.on("request", lambda request: addresses.append(request.url))
  yield page
  context.close()
  assert not errors
  assert not [a for a in addresses if not a.startswith((site.url, site.plain, "data:", "file:"))]
