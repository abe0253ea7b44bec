"""The fields of a config, declared once: the paper's values, and defaults for checkpoints without a field."""

import copy

import pytest

from shufflenet_jax.config import config_file, fields, settings
from shufflenet_jax.errors import UserError
from shufflenet_jax.models import build


def test_the_defaults_are_the_papers_recipe():
  config = fields.default_config()
  assert (config.batch_size, config.num_train_steps) == (1024, 300_000)
  optimizer = config.optimizer
  assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.5, 0.9, 4e-5)
  assert (config.data.image_size, config.data.eval_resize, config.model.num_classes) == (224, 256, 1000)


@pytest.mark.parametrize("name", build.NETWORKS)
def test_the_defaults_of_every_network_are_allowed(name):
  config = fields.default_config(name)
  settings.check(config, training=True)
  assert config.model.network == name
  if "mflops" not in config.model:  # to solve for Table 4's widths takes minutes; test_networks builds those
    build.network(config.model)


def test_a_networks_fields_are_its_modules():
  assert build.own_fields("shufflenet_v1") == {
    "groups": 3, "scale": 1.0, "shuffle": "paper", "shortcut_first": True, "se": False, "repeats": (4, 8, 4), "stem": 0,
    "classifier_bias": True, "lowering": "auto",
  }  # fmt: skip
  assert build.own_fields("mobilenet_v1") == {"scale": 1.0, "lowering": "auto"}
  assert build.own_fields("resnext") == {"mflops": 38.0, "lowering": "auto"}
  assert build.own_fields("alexnet") == {}


def test_fields_that_detectors_had_in_earlier_versions_are_dropped():
  values = {"task": "detection", "model": {"network": "shufflenet_v1", "lowering": "auto"}}
  values |= {"data": {"color_jitter": 0.0}, "optimizer": {"label_smoothing": 0.0}}
  completed = fields.complete(values)
  assert "color_jitter" not in completed["data"] and "label_smoothing" not in completed["optimizer"]
  assert completed["data"]["short_side"] == 600


def test_missing_fields_are_completed_and_others_kept():
  values = {"seed": 7, "model": {"network": "mobilenet_v1", "dtype": "float32"}, "data": {"flip": False}, "mine": 1}
  before = copy.deepcopy(values)
  completed = fields.complete(values)
  assert values == before
  own = {"network": "mobilenet_v1", "dtype": "float32", "scale": 1.0, "lowering": "auto"}
  assert completed["model"] == own | {"num_classes": 1000}
  assert (completed["seed"], completed["mine"], completed["data"]["flip"]) == (7, 1, False)
  assert completed["optimizer"]["momentum"] == 0.9
  assert fields.complete(completed) == completed


def test_a_network_of_a_later_version_is_left_as_it_is():
  assert fields.complete({"model": {"network": "shufflenet_v3", "width": 2}})["model"]["width"] == 2


def test_a_shufflenet_without_a_lowering_has_another_order_of_channels():
  with pytest.raises(UserError, match="another order of channels"):
    fields.complete({"model": {"network": "shufflenet_v1", "groups": 3}})


def test_a_users_config_can_start_from_a_shipped_one(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from shufflenet_jax.config import config_file\n"
    "def get_config():\n"
    "  config = config_file.load('configs/imagenet.py:scale=0.5,batch=512')\n"
    "  config.data.name = 'flowers'\n"
    "  return config\n"
  )
  config = config_file.load(str(path))
  assert (config.data.name, config.batch_size, config.optimizer.learning_rate) == ("flowers", 512, 0.25)
