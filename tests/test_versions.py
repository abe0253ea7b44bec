"""The versions that are claimed are those that were tested, and whatever the code imports is among them."""

import ast
import functools
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("shufflenet_jax", "configs", "launch", "tests", "benchmarks")
REQUIREMENTS = (
  "requirements.txt",
  "requirements-torch.txt",
  "requirements-browser.txt",
  "benchmarks/requirements.txt",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What cannot be asked of the installed packages: PyTorch's are optional, and TensorFlow's name depends on the machine.
DISTRIBUTIONS = {
  "tensorflow": "tensorflow",
  "torch": "torch",
  "pytorchcv": "pytorchcv",
  "cv2": "opencv-python-headless",
  "safetensors": "safetensors",
}


def pins(file: str) -> dict[tuple[str, bool], Requirement]:
  """(distribution, whether for x86-64 alone) -> the line of a requirements file."""
  lines = [line.partition(" #")[0].strip() for line in (ROOT / file).read_text().splitlines()]
  found = [Requirement(line) for line in lines if line and not line.startswith("#")]
  return {(canonicalize_name(r.name), "==" in str(r.marker)): r for r in found}


def version(pin: Requirement) -> str:
  [specifier] = pin.specifier
  assert specifier.operator == "==", f"{pin} is not pinned"
  return specifier.version


def test_every_requirement_is_pinned():
  for file in REQUIREMENTS:
    for pin in pins(file).values():
      version(pin)


def test_the_packages_own_requirements_are_the_pins_and_their_bug_fixes():
  pinned = pins("requirements.txt")
  versions = {name: version(pin) for (name, _), pin in pinned.items()}
  for text in [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["export"]]:
    requirement = Requirement(text)
    tested = versions[canonicalize_name(requirement.name)]
    allowed = requirement.specifier
    assert tested in allowed, f"{text}: tests run with {tested}"
    assert "999999" not in allowed, f"{text} has no upper bound"
    major, minor, patch = map(int, tested.split(".")[:3])
    for older in (f"{major}.{minor}.{patch - 1}", f"{major}.{minor - 1}.999", f"{major - 1}.999"):
      assert "-" in older or older not in allowed, f"{text} claims {older}, which is older than what tests run with"
  for optional in map(Requirement, PROJECT["project"]["optional-dependencies"]["torch"]):
    assert optional.specifier == pins("requirements-torch.txt")[optional.name, False].specifier
  [build] = map(Requirement, PROJECT["build-system"]["requires"])
  assert version(build) == versions["setuptools"]


def test_both_names_of_tensorflow_are_one_version():
  versions = {name: version(pin) for (name, _), pin in pins("requirements.txt").items()}
  assert versions["tensorflow"] == versions["tensorflow-cpu"]


def imports(folders=FOLDERS) -> dict[str, str]:
  """Imported module of another project -> one file that imports it."""
  found = {}
  for path in (p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      if isinstance(node, ast.ImportFrom) and node.level == 0:
        # `from google.cloud import storage` imports google.cloud.storage, of which google.cloud alone says nothing.
        names = [f"{node.module}.{alias.name}" for alias in node.names]
      for name in names:
        if name.partition(".")[0] not in {*sys.stdlib_module_names, *FOLDERS}:
          found.setdefault(name, str(path.relative_to(ROOT)))
  return found


@functools.cache
def distribution(module: str) -> str:
  """The distribution that a module comes from. Several share packages such as `google`, so we look at their files."""
  top = module.partition(".")[0]
  candidates = sorted(set(importlib.metadata.packages_distributions().get(top, [])))
  if top in DISTRIBUTIONS or not candidates:
    return DISTRIBUTIONS.get(top, top)
  if len(candidates) == 1:
    return canonicalize_name(candidates[0])
  parts = module.split(".")
  for length in range(len(parts), 1, -1):
    place = "/".join(parts[:length])
    for name in candidates:
      files = {str(file) for file in importlib.metadata.files(name) or ()}
      if {f"{place}.py", f"{place}/__init__.py"} & files:
        return canonicalize_name(name)
  raise AssertionError(f"{module} is in none of {', '.join(candidates)}")


@pytest.mark.parametrize(
  ("module", "wanted"),
  [("google.cloud.storage.Client", "google-cloud-storage"), ("google.auth.exceptions", "google-auth"),
   ("google.api_core.retry.Retry", "google-api-core"), ("PIL.Image", "pillow"), ("sklearn", "scikit-learn")],
)  # fmt: skip
def test_modules_are_traced_to_their_distributions(module, wanted):
  assert distribution(module) == wanted


def test_everything_imported_is_pinned():
  pinned = {name for file in REQUIREMENTS for name, _ in pins(file)}
  pinned |= set(re.findall(r"--no-deps (\w+)==", (ROOT / "Makefile").read_text()))
  unpinned = {distribution(m): f"{m} in {file}" for m, file in imports().items() if distribution(m) not in pinned}
  assert not unpinned, f"imported, and in no requirements file: {unpinned}"


def test_everything_the_package_imports_is_declared():
  declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
  for extra in PROJECT["project"]["optional-dependencies"].values():
    declared |= {canonicalize_name(Requirement(text).name) for text in extra}
  missing = {distribution(m): f"{m} in {file}" for m, file in imports(("shufflenet_jax", "configs")).items()}
  missing = {name: where for name, where in missing.items() if name not in declared}
  assert not missing, f"imported by the package, and not in pyproject.toml's dependencies: {missing}"


def make_install(folder: pathlib.Path, python) -> subprocess.CompletedProcess:
  """`make install` of nothing, in a folder of its own."""
  (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
  if not (folder / "requirements.txt").exists():
    (folder / "requirements.txt").write_text("")
  environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")}
  command = ["make", "install", f"PYTHON={python}"]
  return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def pretend(path: pathlib.Path, wanted: str) -> pathlib.Path:
  """A program that is this Python and says it is of another version."""
  info = (*map(int, wanted.split(".")), "final", 0)
  code = f"import sys; sys.version_info = {info}; sys.version = {wanted!r}; exec(sys.argv.pop(1))"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "Python {wanted}" && exit\n')
  with path.open("a") as file:
    file.write(f'[ "$1" = -c ] && shift && exec "{sys.executable}" -c "{code}" "$@"\nexec "{sys.executable}" "$@"\n')
  path.chmod(0o755)
  return path


@pytest.mark.parametrize("wanted", ["2.7.18", "3.6.15", "3.10.14", "3.11.0", "3.12.9", "3.13.0", "3.14.2", "4.0.0"])
def test_make_names_the_pythons_that_work_in_one_line(tmp_path, wanted):
  done = make_install(tmp_path, pretend(tmp_path / "bin/python", wanted))
  works = wanted in SpecifierSet(PROJECT["project"]["requires-python"])
  assert works == (wanted[:4] in ("3.11", "3.12"))
  lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
  assert lines == ([] if works else [f"error: Python 3.11 or 3.12 is needed, this is {wanted}; name one: "
                                     "make install PYTHON=python3.11"])  # fmt: skip
  if not works:
    assert done.returncode
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("before", ["another Python", "a broken link", "no pip"])
def test_make_replaces_an_environment_that_cannot_be_used(tmp_path, before):
  old = tmp_path / ".venv/bin/python"
  if before == "another Python":
    pretend(old, "3.14.0")
    (tmp_path / ".venv/installed").touch()  # newer than the requirements: all was well, with that Python
  elif before == "a broken link":
    old.parent.mkdir(parents=True)
    old.symlink_to(tmp_path / "absent")
  else:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
  (tmp_path / "requirements.txt").write_text("")
  os.utime(tmp_path / "requirements.txt", (0, 0))
  left = tmp_path / ".venv/left"
  left.touch()
  done = make_install(tmp_path, sys.executable)
  assert done.returncode == 0, done.stderr
  assert not done.stderr
  assert not left.exists()
  answer = subprocess.run([old, "-m", "pip", "--version"], capture_output=True, text=True, check=True).stdout
  assert str(tmp_path) in answer


def test_make_keeps_an_environment_that_can_be_used(tmp_path):
  assert make_install(tmp_path, sys.executable).returncode == 0
  kept = tmp_path / ".venv/kept"
  kept.touch()
  assert make_install(tmp_path, sys.executable).returncode == 0
  os.utime(tmp_path / "requirements.txt")
  (tmp_path / ".venv/installed").unlink()
  assert make_install(tmp_path, sys.executable).returncode == 0
  assert kept.exists()
