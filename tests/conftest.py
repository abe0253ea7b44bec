"""Four fake CPU devices; programs are compiled once for pytest's processes, and once for the commands that they run.

Commands have one device, and JAX's key of a compiled program counts the devices there are.
"""

import os
import signal
import tempfile
import typing

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
# TensorFlow gives up on a bucket that does not answer after ten seconds of trying, in place of two minutes.
os.environ["GCS_RETRY_CONFIG_MAX_RETRIES"] = "10"
os.environ["GCS_RETRY_CONFIG_INIT_DELAY_TIME_US"] = "10000"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job, whose children inherit it
  signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest

import shufflenet_jax.data  # noqa: F401  before TensorFlow, to quieten it
from configs import quickstart

pytest_plugins = ["tests.preparation", "tests.annotated", "tests.authors", "tests.boxes"]
jax.config.update("jax_num_cpu_devices", 4)
# A broadcast or a conversion that the code does not write out is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # pytest's other processes, and commands, inherit the folder
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
  jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
  # Compiling takes the ordinary tests longer than running; the slow ones not.
  jax.config.update("jax_disable_most_optimizations", "not slow" in config.option.markexpr)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """Where the session's TFDS datasets are."""
  return str(tmp_path_factory.mktemp("tfds"))


def small_config(data_dir):
  """The quickstart config, cut down to a network and a run of seconds.

  Steps, schedule and batch are compiled in: who leaves them as they are, and ends a run with `stop_after_step`, finds
  the program compiled.
  """
  c = quickstart.get_config()
  c.data.data_dir = data_dir
  c.model.scale = 0.25
  c.model.repeats = (1, 1, 1)
  c.num_train_steps, c.batch_size, c.eval_batch_size = 12, 16, 100
  c.log_every_steps, c.eval_every_steps, c.checkpoint_every_steps = 4, 6, 6
  c.optimizer.warmup_steps = 2
  return c


@pytest.fixture
def config(data_dir):
  return small_config(data_dir)


class TrainedRun(typing.NamedTuple):
  """What `train` was given and returned."""

  config: typing.Any
  workdir: str
  state: typing.Any
  figures: dict


@pytest.fixture(scope="session")
def run(tmp_path_factory, data_dir):
  """A whole run of `config` on one device, for tests that only read it."""
  from shufflenet_jax.training.loop import train

  config, workdir = small_config(data_dir), str(tmp_path_factory.mktemp("run"))
  return TrainedRun(config, workdir, *train(config, workdir, jax.devices()[:1]))
