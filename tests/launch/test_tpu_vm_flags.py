"""Flags that launch/tpu_vm refuses, commands it prints, code it packs; and the table of slices."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from launch import commands, outcomes
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import slices
from tests.launch import stand_in
from tests.launch.launcher import AWKWARD, ROOT, TRAINING, tpu_vm
from tests.launch.stand_in import Script


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["up", "--name=Sn 1"], "--name='Sn 1' must be lower-case"),
    (["up", "--name=a;id"], "--name='a;id'"),
    (["up", "--name=-a"], "--name='-a'"),
    (["up", "--zone=here"], "--zone='here'"),
    (["up", "--project=a b"], "--project='a b'"),
    (["up", "--bucket=my-bucket"], "--bucket='my-bucket'"),
    (["up", "--bucket=gs://my-bucket/'"], "--bucket="),
    (["up", "--type=v9-8"], "--type=v9-8 is not an accelerator type"),
    (["up", "--type=v5litepod-12"], "v5litepod-16"),
    (["up", "--retry=-1"], "--retry=-1"),
    (["up", "--retry=many"], "many"),
    (["up", "--commit=nowhere"], "--commit=nowhere is not a commit"),
    (["up", "--commit=--output=x"], "is not a commit"),
    (["up", "--nonsense"], "--nonsense"),
    (["up", "--max_hours=nan"], "--max_hours=nan"),
    (["up", "--poll_seconds=inf"], "--poll_seconds=inf"),
    (["up", "--gcloud_flag=--zone=us-west1-c"], "--gcloud_flag=--zone=us-west1-c"),
    (["up", "--gcloud_flag=--proj=other"], "that the launcher does not set"),
    (["up", "--gcloud_flag=junk"], "--gcloud_flag=junk"),
    (["logs", "--worker=4"], "--worker=4"),
    (["fly"], "fly"),
  ],
)
def test_wrong_flags_are_one_line_and_nothing_is_called(tmp_path, flags, words):
  done = tpu_vm(tmp_path, *flags, script=Script())
  assert done.returncode == outcomes.WRONG
  assert words in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert not done.calls


@pytest.mark.parametrize(
  ("flags", "training", "words"),
  [
    ([], ["--workdir=gs://b/r"], "--config is missing"),
    ([], ["--config=c.py"], "--workdir is missing"),
    ([], ["--config=x", "--workdir=gs://bucket/r"], "--config=x must be a Python file"),
    ([], ["--config=c.py", "--workdir=gs://bucket/r", "--nodistributed"], "--nodistributed after --"),
    ([], ["--config=c.py:x", "--workdir=gs://bucket/r"], "--config=c.py is not a file of the commit to run (HEAD)"),
    ([], ["--config=c.py", "--workdir=gs://"], "--workdir=gs:// must be gs://BUCKET/FOLDER"),
    ([], ["--config=c.py", "--workdir=runs/x"], "would be deleted with the slice"),
    (["--retry=1", "--keep"], ["--config=c.py", "--workdir", "runs/x"], "--retry needs gs://"),
    (["--stage_data"], ["--config=c.py", "--workdir=gs://bucket/r"], "give --config.data.data_dir=gs://"),
  ],
)
def test_training_flags_are_checked_first(tmp_path, flags, training, words):
  done = tpu_vm(tmp_path, "up", *flags, training=training, script=Script())
  assert (done.returncode, done.calls) == (outcomes.WRONG, [])
  assert words in done.stderr


DUBIOUS = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.mark.parametrize(
  ("environment", "words"),
  [
    (DUBIOUS, "--commit=HEAD cannot be looked up in {root}: fatal: detected dubious ownership in repository"),
    (DUBIOUS, "git config --global --add safe.directory"),
    ({"GIT_DIR": "/absent"}, "--commit=HEAD cannot be looked up in {root}: fatal: not a git repository: '/absent'"),
    ({"GIT_CONFIG_COUNT": "x"}, "cannot be looked up in {root}: "),
  ],
)
def test_gits_reason_is_passed_on(tmp_path, monkeypatch, environment, words):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  done = tpu_vm(tmp_path, "up", script=Script())
  assert (done.returncode, done.calls) == (outcomes.WRONG, [])
  [line] = done.stderr.splitlines()
  assert words.format(root=ROOT) in line
  assert "is not a commit" not in line


def test_gits_reason_for_not_reading_a_config_is_passed_on(tmp_path):
  """git works at first, and then fails for a reason that has nothing to do with the config."""
  stand_in.install(tmp_path, Script())
  git = tmp_path / "bin/git"
  git.write_text(
    '#!/bin/sh\ncase "$*" in *cat-file*) echo "fatal: loose object 12ab is corrupt" >&2; exit 128;; esac\n'
  )
  with git.open("a") as file:
    file.write(f'exec "{shutil.which("git")}" "$@"\n')
  git.chmod(0o755)
  done = tpu_vm(tmp_path, "up")
  assert (done.returncode, done.calls) == (outcomes.WRONG, [])
  assert "cannot be looked up in HEAD: fatal: loose object 12ab is corrupt\n" in done.stderr


@pytest.mark.parametrize(
  ("text", "wanted"),
  [
    ("WARNING: x\nERROR: (gcloud.a) PERMISSION_DENIED: no\n", "ERROR: (gcloud.a) PERMISSION_DENIED: no"),
    ("ERROR: (gcloud) Tokens expired. Please run:\n\n  $ gcloud auth login\n",
     "ERROR: (gcloud) Tokens expired. Please run: $ gcloud auth login"),
    ("ssh: connect to host 10.0.0.1 port 22: Connection refused\n"
     "ERROR: (gcloud.ssh) [/usr/bin/ssh] exited with return code [255].\n",
     "ssh: connect to host 10.0.0.1 port 22: Connection refused "
     "ERROR: (gcloud.ssh) [/usr/bin/ssh] exited with return code [255]."),
    ("E1 memcache.go\nerror: You must be logged in to the server (Unauthorized)\n",
     "error: You must be logged in to the server (Unauthorized)"),
    ("Error from server (NotFound): jobsets \"a\" not found", "Error from server (NotFound): jobsets \"a\" not found"),
    ("one\ntwo\n", "two"),
    ("\n", "no message"),
    ("ERROR: " + "x" * 400, "ERROR: " + "x" * 290 + "..."),
  ],
)  # fmt: skip
def test_the_reason_why_a_program_failed(text, wanted):
  assert commands.reason(text) == wanted


@pytest.mark.parametrize(
  ("text", "wanted"),
  [
    ("NOT_FOUND: Resource 'projects/p/locations/us-a/queuedResources/sn-1' was not found", True),
    ("NOT_FOUND: Requested entity was not found.", True),
    ("NOT_FOUND: Project 'p' was not found or you have no access", False),
    ("Location us-x is not found or access is unauthorized", False),
    ("The zone 'us-x' could not be found: NOT_FOUND", False),
    ("PERMISSION_DENIED", False),
  ],
)
def test_an_unknown_project_or_zone_is_no_answer_about_a_slice(text, wanted):
  assert commands.CommandFailed(["gcloud"], 1, f"ERROR: (gcloud.x) {text}").not_found == wanted


@pytest.mark.parametrize(
  ("call", "words"),
  [
    ("worker.sh report|command=true", "cannot be reached over ssh: ERROR: /k: No such file or directory"),
    ("worker.sh report", "exited with 255: ERROR: /k: No such file or directory"),
  ],
)
def test_another_missing_file_is_not_mistaken_for_a_missing_checkout(tmp_path, call, words):
  stand_in.install(tmp_path, Script(fail=((call, 255, "/k: No such file or directory", 99),)))
  (tmp_path / "cloud.json").write_text(json.dumps({"exists": True, "created": 1}))
  done = tpu_vm(tmp_path, "status")
  assert done.returncode == outcomes.FAILED
  assert words in done.stderr


def test_a_dry_run_prints_the_commands_of_a_run(tmp_path):
  for path in (dry := tmp_path / "dry", wet := tmp_path / "wet"):
    path.mkdir()
  training = TRAINING + AWKWARD
  printed = tpu_vm(dry, "up", "--spot", "--dry_run", training=training, script=Script(states=("ACTIVE",)))
  called = tpu_vm(wet, "up", "--spot", training=training, script=Script(states=("ACTIVE",)))
  assert printed.returncode == called.returncode == 0
  assert printed.calls == []
  lines = shlex.split(printed.stdout.replace(" # ", " #"), comments=True)
  at = [i for i, word in enumerate(lines) if word in ("gcloud", "git")] + [len(lines)]
  printed_commands = [lines[i:j] for i, j in zip(at, at[1:])]

  def without_folder(command):
    return [word.rpartition("/")[2] if word.endswith("/sn-1.tar.gz") else word for word in command]

  assert [without_folder(c) for c in printed_commands if c[0] == "gcloud"] == [without_folder(c) for c in called.calls]


@pytest.fixture
def clone(tmp_path):
  """A clone of this repository, with the launcher as it is in the working tree committed."""
  clone = tmp_path / "clone"
  subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)], check=True)
  for path in ("launch", "shufflenet_jax/tpu"):
    shutil.copytree(ROOT / path, clone / path, dirs_exist_ok=True)
  stand_in.install(tmp_path / "cloud", Script())
  subprocess.run(["git", "-C", str(clone), "add", "-A"], check=True)
  environment = stand_in.environment(tmp_path / "cloud")
  subprocess.run(["git", "-C", str(clone), "commit", "-qm", "x", "--allow-empty"], check=True, env=environment)
  return clone


def up(clone, *flags):
  """Runs `up` of the clone's launcher."""
  line = [str(clone / "launch/tpu_vm"), "up", "--name=sn-1", "--zone=us-central1-a", "--type=v5litepod-16"]
  line += ["--poll_seconds=0", *flags, "--", *TRAINING]
  environment = stand_in.environment(clone.parent / "cloud")
  return subprocess.run(line, env=environment, capture_output=True, text=True)


def packed_requirements(clone):
  archive = str(clone.parent / "cloud/uploaded.tar.gz")
  return subprocess.run(["tar", "-xzOf", archive, "requirements.txt"], capture_output=True).stdout


def test_an_uncommitted_change_is_refused_or_packed_with_allow_dirty(clone):
  (clone / "requirements.txt").write_text("changed\n")
  done = up(clone)
  assert done.returncode == outcomes.WRONG
  assert "1 uncommitted changes would not be run" in done.stderr
  assert not stand_in.calls(clone.parent / "cloud")
  done = up(clone, "--allow_dirty")
  assert done.returncode == 0, done.stderr
  assert packed_requirements(clone) == b"changed\n"


@pytest.mark.parametrize("flags", [[], ["--allow_dirty"]])
def test_a_file_that_was_only_touched_has_not_changed(clone, flags):
  file = clone / "requirements.txt"
  os.utime(file, (1, 1))
  done = up(clone, *flags)
  assert done.returncode == 0, done.stderr
  assert packed_requirements(clone) == file.read_bytes()


def test_slices_have_libtpus_names():
  for name, wanted in {
    "v5e:2x2": ("v5litepod-4", 4, 1, 112), "v5e:2x4": ("v5litepod-8", 8, 1, 224),
    "v5e:4x4": ("v5litepod-16", 16, 4, 112), "v5e:16x16": ("v5litepod-256", 256, 64, 112),
    "v4:2x2x1": ("v4-8", 4, 1, 240), "v5p:2x2x2": ("v5p-16", 8, 2, 208),
    "v6e:2x2": ("v6e-4", 4, 1, 180), "v6e:1x1": ("v6e-1", 1, 1, 44),
  }.items():  # fmt: skip
    s = slices.from_topology(name)
    assert (s.accelerator_type, s.chips, s.hosts, s.vcpus_per_host) == wanted
    assert slices.from_accelerator_type(wanted[0]) == s
  with pytest.raises(UserError, match="v5litepod-16"):
    slices.from_accelerator_type("v5litepod-12")
  with pytest.raises(UserError, match="v9:2x2"):
    slices.from_topology("v9:2x2")


def test_the_launcher_needs_only_the_standard_library(tmp_path):
  code = "import sys; sys.path[:0] = [sys.argv[1]]; from launch import tpu_vm, gke; print(tpu_vm.main(['up']))"
  done = subprocess.run(
    [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, cwd=tmp_path
  )
  assert done.stdout == "2\n", done.stderr


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gclouds_linter_accepts_every_command(tmp_path):
  """If gcloud is installed: its linter needs neither network nor account."""
  done = tpu_vm(tmp_path, "up", "--spot", "--dry_run", "--project=my-project", script=Script())
  printed = [line.partition("  # ")[0] for line in done.stdout.splitlines() if line.startswith("gcloud")]
  environment = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path / "config"), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
  assert len(set(printed)) > 5
  for command in sorted(set(printed)):
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"]
    linted = subprocess.run(lint, env=environment, capture_output=True, text=True, timeout=120)
    if not linted.stdout:
      pytest.skip("this gcloud has no linter")
    [found] = json.loads(linted.stdout)
    assert found["success"], found["error_message"]


def test_a_flag_that_the_console_cannot_encode_is_escaped(tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONIOENCODING", "ascii")
  done = tpu_vm(tmp_path, "up", "--dry_run", training=[*TRAINING, "--config.data.name=ü"], script=Script())
  assert done.returncode == 0, done.stderr
  assert r"--config.data.name=\xfc" in done.stdout
