"""Four fake CPU devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

import shufflenet_jax.data  # noqa: F401  before TensorFlow, to quieten it
from configs import quickstart

jax.config.update("jax_num_cpu_devices", 4)


def pytest_configure(config):
  """Compiling takes the ordinary tests longer than running; the slow ones not."""
  jax.config.update("jax_disable_most_optimizations", "not slow" in config.option.markexpr)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """Where the session's TFDS datasets are."""
  return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def config(data_dir):
  """The quickstart config, cut down to a network and a run of seconds."""
  c = quickstart.get_config()
  c.data.data_dir = data_dir
  c.model.scale = 0.25
  c.model.repeats = (1, 1, 1)
  c.num_train_steps, c.batch_size, c.eval_batch_size = 12, 16, 100
  c.log_every_steps, c.eval_every_steps, c.checkpoint_every_steps = 4, 6, 6
  c.optimizer.warmup_steps = 2
  return c
