"""configs/imagenet.py: the paper's recipe, and the same at another batch."""

import re

import pytest

from configs import folder, imagenet, quickstart
from shufflenet_jax.errors import UserError
from tests.commands import ROOT


def recipe(arguments):
  c = imagenet.get_config(arguments)
  return c.batch_size, c.num_train_steps, c.optimizer.learning_rate, c.optimizer.warmup_steps, c.eval_every_steps


@pytest.mark.parametrize(
  ("arguments", "wanted"),
  [
    ("", (1024, 300_000, 0.5, 0, 5000)),
    ("scale=1.0,groups=3,batch=1024", (1024, 300_000, 0.5, 0, 5000)),
    # Goyal et al., 2017: rate times k, steps by k, 5 epochs of warm-up; 1,281,167 images
    ("scale=1.0,groups=3,batch=4096", (4096, 75_000, 2.0, 1564, 1250)),
    ("batch=8192", (8192, 37_500, 4.0, 782, 625)),
    ("batch=256,scale=0.5", (256, 1_200_000, 0.125, 0, 20_000)),
    ("network=alexnet,batch=2048", (2048, 150_000, 0.02, 3128, 2500)),
  ],
)
def test_batch_scales_rate_and_steps(arguments, wanted):
  assert recipe(arguments) == wanted


def test_another_batch_is_the_same_number_of_images():
  one, other = imagenet.get_config("batch=1024"), imagenet.get_config("batch=4096")
  assert one.batch_size * one.num_train_steps == other.batch_size * other.num_train_steps
  assert one.model == other.model and one.data == other.data


@pytest.mark.parametrize("batch", ["0", "-1", "many", "1.5", ""])
def test_batches_that_are_none_are_refused(batch):
  with pytest.raises(UserError, match=f"batch={batch} "):
    imagenet.get_config(f"batch={batch}")


def test_quickstart_has_a_batch_of_its_own():
  with pytest.raises(UserError, match="--config.batch_size"):
    quickstart.get_config("scale=0.5,groups=3,batch=128")


@pytest.mark.parametrize(
  ("config", "figures"),
  [
    (quickstart, r"top-1 (\d+\.\d+) %, (\d+\.\d+) %, (\d+\.\d+) % on the 355 held-out digits"),
    (folder, r"Time: (\d+ min \d+ s)(?s:.*)top-1 (\d+\.\d+) % on(?s:.*)scratch.*: (\d+\.\d+) %\safter (\d+ min \d+ s)"),
  ],
)
def test_the_readme_has_the_figures_of_a_configs_docstring(config, figures):
  readme = " ".join((ROOT / "README.md").read_text().split())
  for figure in re.search(figures, config.__doc__).groups():
    assert figure in readme
