"""What pip installs: one package, the shipped configs within it, and commands that work from any folder."""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from shufflenet_jax.config import recipes
from shufflenet_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SMALL = ["--config.model.scale=0.25", "--config.model.repeats=(1,1,1)", "--config.optimizer.warmup_steps=1"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """A wheel of the checkout, installed into a folder of its own."""
  folder = tmp_path_factory.mktemp("wheel")
  for name in ("shufflenet_jax", "configs", "launch", "tests"):
    shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, folder / "source" / name)
  pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
  offline = ["--no-deps", "--no-index"]
  subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", folder, folder / "source"], check=True)
  [wheel] = folder.glob("*.whl")
  subprocess.run([*pip, "install", *offline, f"--target={folder / 'site'}", wheel], check=True)
  return wheel, folder / "site"


@pytest.fixture
def run(installed, tmp_path):
  """Runs an installed command in a folder with a package named `configs`, and no module of the checkout on the path."""
  mine = tmp_path / "mine"
  (mine / "configs").mkdir(parents=True)
  (mine / "configs/__init__.py").write_text("raise RuntimeError('the configs package of the user')\n")

  def command(name, *arguments):
    environment = os.environ | {"PYTHONPATH": f"{mine}:{installed[1]}", "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONSAFEPATH": "1"}
    line = [sys.executable, installed[1] / "bin" / name, *arguments]
    return subprocess.run(line, cwd=mine, env=environment, capture_output=True, text=True, timeout=300)

  command.folder = mine
  return command


def test_only_one_package_is_installed(installed):
  with zipfile.ZipFile(installed[0]) as wheel:
    names = wheel.namelist()
  top = {name.partition("/")[0] for name in names}
  assert {name for name in top if not name.endswith(".dist-info")} == {"shufflenet_jax"}
  for source, place in (("shufflenet_jax", "shufflenet_jax"), ("configs", "shufflenet_jax/configs")):
    for file in (ROOT / source).rglob("*"):
      if file.is_file() and "__pycache__" not in file.parts:
        assert f"{place}/{file.relative_to(ROOT / source).as_posix()}" in names


def test_the_package_imports_no_other_folder_of_the_checkout():
  for path in (ROOT / "shufflenet_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
      assert not {name.partition(".")[0] for name in names} & {"configs", "launch", "tests", "benchmarks"}, path


def test_every_command_is_installed(installed):
  package = ROOT / "shufflenet_jax"
  commands = {
    path.relative_to(package).with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
    for path in package.rglob("*.py")
    if "\n  cli.run(" in path.read_text()
  }
  from shufflenet_jax import console

  scripts = PROJECT["project"]["scripts"]
  assert {console.__dict__[target.partition(":")[2]].args[0] for target in scripts.values()} == commands
  for name, target in scripts.items():
    assert target == f"shufflenet_jax.console:{name.removeprefix('shufflenet-').replace('-', '_')}"
    assert (installed[1] / "bin" / name).is_file()


def test_shipped_configs_are_found_beside_a_package_of_the_same_name(run):
  done = run("shufflenet-complexity", "--config=configs/quickstart.py", "--json")
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)[0]["params"] == 110_794
  (run.folder / "configs/quickstart.py").write_text("raise ValueError('of the user')\n")
  done = run("shufflenet-complexity", "--config=configs/quickstart.py")
  assert done.returncode == 2
  assert "of the user" in done.stderr
  done = run("shufflenet-complexity", "--help")
  assert "python -m shufflenet_jax.complexity" in done.stdout


def test_what_a_config_path_names(tmp_path, monkeypatch):
  shipped = str(recipes.folder() / "imagenet.py")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert recipes.find("configs/imagenet.py") == recipes.find("./configs/imagenet.py") == shipped
  names = "configs/folder.py, configs/imagenet.py, configs/quickstart.py"
  for wrong in (
    "imagenet.py",
    "other/imagenet.py",
    "configs/absent.py",
    f"{tmp_path}/configs/imagenet.py",
    "",
    "configs",
  ):
    with pytest.raises(UserError, match=f"^--config={wrong} is no file; .*{names}$"):
      recipes.find(wrong)
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs/imagenet.py").touch()
  (tmp_path / "own.py").touch()
  assert recipes.find("configs/imagenet.py") == "configs/imagenet.py"
  assert recipes.find("~/own.py") == f"{tmp_path}/own.py"


@pytest.mark.slow
def test_an_installed_wheel_trains_evaluates_and_predicts(run, tmp_path):
  work = ["--config=configs/quickstart.py:scale=0.25,groups=3", f"--workdir={tmp_path}/w", *SMALL]
  data = f"--config.data.data_dir={tmp_path}/data"
  done = run("shufflenet-train", *work, data, "--config.num_train_steps=4")
  assert done.returncode == 0, done.stderr
  assert "done: step 4 of 4" in done.stdout
  done = run("shufflenet-evaluate", f"--checkpoint={tmp_path}/w")
  assert json.loads(done.stdout.splitlines()[-1])["examples"] == 355
  export = ["--config=configs/quickstart.py", data, "--count=2", f"--to={tmp_path}/pictures"]
  assert run("shufflenet-export-pictures", *export).returncode == 0
  pictures = sorted((tmp_path / "pictures").glob("*/*.png"))
  done = run("shufflenet-predict", f"--checkpoint={tmp_path}/w", "--json", *pictures)
  assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == list(map(str, pictures))


@pytest.mark.torch
def test_an_installed_wheel_imports_from_pytorch(run, tmp_path):
  from tests.test_torch import small_file

  done = run("shufflenet-import-torch", f"--from={small_file(tmp_path)}", f"--to={tmp_path}/w")
  assert done.returncode == 0, done.stderr
  config = json.loads((tmp_path / "w/config.json").read_text())
  assert config["data"]["antialias"] is False and config["data"]["image_size"] == 224
