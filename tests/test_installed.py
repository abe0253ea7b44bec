"""What pip installs: one package, the shipped configs within it, and commands that work from any folder."""

import csv
import importlib
import json
import os
import pathlib
import shutil
import site
import subprocess
import sys
import sysconfig
import tomllib
import typing

import pytest

from shufflenet_jax import cli
from shufflenet_jax.config import shipped
from shufflenet_jax.errors import UserError
from tests.commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN_CONFIG = """
from shufflenet_jax.config.fields import default_config

def get_config():
  config = default_config("shufflenet_v1", scale=0.25, repeats=(1, 1, 1))
  config.num_train_steps, config.batch_size, config.eval_batch_size = 4, 16, 120
  config.model.num_classes = 10
  config.data.name, config.data.eval_split = "digits", "test"
  config.data.image_size = config.data.eval_resize = 32
  config.optimizer.learning_rate = 0.1
  return config
"""


class Environment(typing.NamedTuple):
  """A virtual environment into which pip has installed the checkout, and the paths that it installed."""

  folder: pathlib.Path
  installed: list[str]  # relative to its site-packages


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
  """An environment of its own, which sees this one's other packages, as `pip install .` would have fetched them."""
  folder = tmp_path_factory.mktemp("installed")
  for name in ("shufflenet_jax", "configs", "launch", "tests"):
    shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, folder / "source" / name)
  venv = folder / "venv"
  subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
  packages = pathlib.Path(sysconfig.get_path("purelib", vars={"base": venv, "platbase": venv}))
  (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
  pip = [sys.executable, "-m", "pip", f"--python={venv / 'bin/python'}", "--quiet", "--disable-pip-version-check"]
  offline = ["--no-deps", "--no-index", "--no-build-isolation"]
  subprocess.run([*pip, "install", *offline, folder / "source"], check=True)
  [record] = packages.glob("shufflenet_jax-*.dist-info/RECORD")
  return Environment(venv, [row[0] for row in csv.reader(record.read_text().splitlines())])


@pytest.fixture
def run(environment, tmp_path):
  """Runs an installed command in a folder that has a package of the user's named `configs`."""
  mine = tmp_path / "mine"
  (mine / "configs").mkdir(parents=True)
  (mine / "configs/__init__.py").write_text("raise RuntimeError('the configs package of the user')\n")

  def command(name, *arguments):
    variables = os.environ | {"PYTHONPATH": str(mine), "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    line = [environment.folder / "bin" / name, *arguments]
    return subprocess.run(line, cwd=mine, env=variables, capture_output=True, text=True, timeout=300)

  command.folder = mine
  return command


def test_only_one_package_is_installed(environment):
  top = {path.partition("/")[0] for path in environment.installed if not path.startswith("../")}
  assert {name for name in top if not name.endswith(".dist-info")} == {"shufflenet_jax"}
  for source, place in (("shufflenet_jax", "shufflenet_jax"), ("configs", "shufflenet_jax/configs")):
    for file in (ROOT / source).rglob("*"):
      if file.is_file() and "__pycache__" not in file.parts:
        assert f"{place}/{file.relative_to(ROOT / source).as_posix()}" in environment.installed


def test_every_command_is_a_console_script(environment):
  package = ROOT / "shufflenet_jax"
  modules = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in package.rglob("*.py")
    if "\ncommand = cli.Command(" in path.read_text()
  }
  assert {target.partition(":")[0] for target in PROJECT["scripts"].values()} == modules
  for name, target in PROJECT["scripts"].items():
    module, _, attribute = target.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), cli.Command)
    assert (environment.folder / "bin" / name).is_file()


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_every_console_script_starts(run, name):
  done = run(name, "--help")
  assert (done.returncode, done.stderr) == (0, "")
  assert "python -m shufflenet_jax." in done.stdout


def test_shipped_configs_are_found_beside_a_package_of_the_same_name(run):
  done = run("shufflenet-complexity", "--config=configs/quickstart.py", "--json")
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)[0]["params"] == 110_794
  (run.folder / "configs/quickstart.py").write_text("raise ValueError('of the user')\n")
  done = run("shufflenet-complexity", "--config=configs/quickstart.py")
  assert done.returncode == 2
  assert "of the user" in done.stderr


def test_what_a_config_path_names(tmp_path, monkeypatch):
  found = str(shipped.folder() / "imagenet.py")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert shipped.find("configs/imagenet.py") == shipped.find("./configs/imagenet.py") == found
  names = (
    "configs/boxes.py, configs/coco.py, configs/folder.py, configs/imagenet.py, configs/quickstart.py,"
    " configs/tiny_imagenet.py"
  )
  for wrong in (
    "imagenet.py",
    "other/imagenet.py",
    "configs/absent.py",
    f"{tmp_path}/configs/imagenet.py",
    "",
    "configs",
  ):
    with pytest.raises(UserError, match=f"^--config={wrong} does not exist; .*{names}$"):
      shipped.find(wrong)
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs/imagenet.py").touch()
  (tmp_path / "own.py").touch()
  assert shipped.find("configs/imagenet.py") == "configs/imagenet.py"
  assert shipped.find("~/own.py") == f"{tmp_path}/own.py"


@pytest.mark.slow
def test_an_installed_package_trains_evaluates_and_predicts_with_a_config_of_the_users(run, tmp_path):
  (run.folder / "mine.py").write_text(OWN_CONFIG)
  data = f"--config.data.data_dir={tmp_path}/data"
  done = run("shufflenet-train", "--config=mine.py", f"--workdir={tmp_path}/w", data)
  assert done.returncode == 0, done.stderr
  assert "done: step 4 of 4" in done.stdout
  done = run("shufflenet-evaluate", f"--checkpoint={tmp_path}/w")
  assert json.loads(done.stdout.splitlines()[-1])["examples"] == 355
  export = ["--config=mine.py", data, "--count=2", f"--to={tmp_path}/pictures"]
  assert run("shufflenet-export-pictures", *export).returncode == 0
  pictures = sorted((tmp_path / "pictures").glob("*/*.png"))
  done = run("shufflenet-predict", f"--checkpoint={tmp_path}/w", "--json", *pictures)
  assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == list(map(str, pictures))


@pytest.mark.torch
def test_an_installed_package_imports_from_pytorch(run, tmp_path):
  from tests.interop.test_torch import small_file

  done = run("shufflenet-import-torch", f"--from={small_file(tmp_path)}", f"--to={tmp_path}/w")
  assert done.returncode == 0, done.stderr
  config = json.loads((tmp_path / "w/config.json").read_text())
  assert config["data"]["antialias"] is False and config["data"]["image_size"] == 224
