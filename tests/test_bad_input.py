"""Whatever users type or hand over, they get a result or one line: inputs that Hypothesis makes up."""

import contextlib
import io

import numpy as np
import pytest
import tensorflow as tf
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import imagenet
from shufflenet_jax import cli
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.config import settings as config_settings
from shufflenet_jax.distributed import mesh
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build
from shufflenet_jax.prediction.predictor import Predictor
from shufflenet_jax.prediction.report import report
from shufflenet_jax.training.optimizer import sgd
from tests.checkpoints import of_random_weights

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
quick = settings(max_examples=150, deadline=None, derandomize=True)

FIELDS = sorted(traverse_util.flatten_dict(imagenet.get_config().to_dict(), sep="."))
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2, 8, 1e9, 1e300])
VALUES = NUMBERS.map(str) | st.text(max_size=8) | st.tuples(NUMBERS, NUMBERS, NUMBERS).map(str)
VALUES |= st.sampled_from(["True", "None", "", "()", "(" * 300, "[1,2]", "{}", "1,2", "--x", "0x10", "1_0", "\0"])
ARGUMENTS = st.sampled_from(["", *build.own_fields("shufflenet_v1"), "network", "batch"])


def parsed(arguments, overrides):
  """The config of a command line; None if it ended with one line."""
  command = cli.Command(print, cli.define_config)
  try:
    values, _ = command.parse(["train", f"--config=configs/imagenet.py{arguments}", *overrides])
  except UserError as error:
    assert error.line
    return None
  return values.config


@quick
@given(st.lists(st.tuples(st.sampled_from(FIELDS) | st.text(max_size=6), VALUES), min_size=1, max_size=3))
def test_any_override_gives_a_config_or_one_line(pairs):
  config = parsed(":scale=0.25", [f"--config.{name}={value}" for name, value in pairs if "=" not in name and name])
  if config is not None:
    with contextlib.suppress(UserError):  # which is one line, as `cli` prints it
      config_settings.check(config, training=True)
      build.network(config.model)
      sgd(config.optimizer, config.num_train_steps)
      mesh.micro_batches(config, 4)


@quick
@given(st.lists(st.tuples(ARGUMENTS | st.text(max_size=6), VALUES), max_size=3))
def test_any_config_argument_gives_a_config_or_one_line(pairs):
  config = parsed(":" + ",".join(f"{name}={value}" for name, value in pairs), [])
  if config is not None:
    with contextlib.suppress(UserError):
      build.network(config.model)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A checkpoint of a small network of random weights."""
  folder = tmp_path_factory.mktemp("bad_input") / "w"
  of_random_weights(folder, list("0123456789"))
  return folder


def encoded(kind: str) -> bytes:
  image = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)
  return getattr(tf.io, f"encode_{kind}")(image).numpy()


@st.composite
def pictures(draw):
  """Bytes of no kind, or of a picture of which a part was changed or cut off."""
  if draw(st.booleans()):
    return draw(st.binary(max_size=200))
  data = bytearray(encoded(draw(st.sampled_from(["jpeg", "png"]))))
  for place, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
    data[place] = value
  return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


def test_any_file_is_predicted_or_named(workdir, tmp_path, capfd, monkeypatch):
  """Those of a call together: what is bad does not keep the others from being answered."""
  name = Predictor(checkpoint.find(workdir))
  good = tmp_path / "good.jpg"
  good.write_bytes(encoded("jpeg"))
  path = tmp_path / "any"

  @quick
  @given(pictures())
  def run(data):
    path.write_bytes(data)
    status = report(name, [str(path), str(good)], as_json=True)
    out, err = capfd.readouterr()
    assert f'"image": "{good}"' in out
    assert (status, len(out.splitlines())) in ((0, 2), (1, 1))
    assert "Traceback" not in err
    if status:
      assert f"error: {path}: not an image that can be decoded" in err

  run()


@quick
@given(st.text(max_size=30))
def test_any_path_is_a_checkpoint_or_one_line(text):
  with pytest.raises(UserError):
    checkpoint.find(text)


@pytest.mark.torch
def test_any_file_is_imported_or_one_line(tmp_path):
  import torch

  from shufflenet_jax.interop import torch_file, torch_layouts

  whole = io.BytesIO()
  torch.save({"state_dict": {"module.first_conv.0.weight": torch.ones(24, 3, 3, 3), "n": 3}}, whole)
  path = tmp_path / "f.pth"

  @quick
  @given(st.data())
  def run(data):
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
      content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    with pytest.raises(UserError):
      torch_layouts.convert(torch_file.load(str(path)))

  run()


@pytest.mark.torch
def test_any_names_and_shapes_are_imported_or_one_line():
  from shufflenet_jax.interop import torch_layouts

  names = st.sampled_from(
    ["first_conv.0.weight", "features.0.branch_main_1.0.weight", "classifier.0.weight", "output.weight", "output.bias",
     "features.init_block.conv.weight", "features.stage1.unit1.compress_conv1.weight"]
  ) | st.text(max_size=10)  # fmt: skip
  shapes = st.lists(st.integers(0, 30), max_size=4)

  @quick
  @given(st.dictionaries(names, shapes, max_size=5))
  def run(described):
    with pytest.raises(UserError):
      torch_layouts.convert({name: np.zeros(shape, np.float32) for name, shape in described.items()})

  run()
