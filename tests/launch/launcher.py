"""Runs launch/tpu_vm against a scripted cloud."""

import pathlib
import subprocess
import sys

from tests.launch import stand_in

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TRAINING = ["--config=configs/imagenet.py:scale=1.0,groups=3", "--workdir=gs://my-bucket/run"]
AWKWARD = [
  '--config.a=it\'s "x"',
  "--config.b=(2, 4)",
  "--config.c=$HOME `id` $(id) ; rm -rf *",
  "--d= ",
  "--e=\\",
  "--f=ü\n",
]


def tpu_vm(folder, *flags, training=TRAINING, script=None, name="sn-1", kind="v5litepod-16", **options):
  """Runs the launcher; returns the finished process, with `calls` and `cloud` added.

  Args:
    folder: of the scripted cloud.
    flags: the command and its flags.
    training: the arguments after --.
    script: starts with a new cloud that follows it; without one, the folder's cloud is used again.
    name, kind: the flags --name and --type.
    options: of `subprocess.run`.
  """
  if script:
    stand_in.install(folder, script)
  command, *rest = flags
  where = [f"--name={name}", "--zone=us-central1-a", f"--type={kind}", "--poll_seconds=0.01"]
  if command in ("up", "setup", "run") and not any(flag[:8] in ("--commit", "--allow_") for flag in rest):
    rest.append("--commit=HEAD")  # the tests also run with uncommitted changes
  launcher = [sys.executable, "-S", str(ROOT / "launch/tpu_vm")]
  line = [*launcher, command, *where, *rest, *(["--", *training] if command in ("up", "run") else [])]
  done = subprocess.run(line, env=stand_in.environment(folder), capture_output=True, text=True, timeout=300, **options)
  assert "Traceback" not in done.stderr, done.stderr
  done.calls, done.cloud = stand_in.calls(folder), stand_in.cloud(folder)
  return done


def verbs(done):
  """One word for each call: gcloud's verb or, for calls of worker.sh, its command."""
  short = []
  for call in done.calls:
    worker = [a.partition("worker.sh ")[2].split()[0] for a in call if "worker.sh" in a]
    unpacked = ["unpack" for a in call if "tar -xzf" in a]
    probed = [a.replace("--worker=", "probe ") for a in call if a.startswith("--worker=") and "--command=true" in call]
    short += worker or unpacked or probed or [call[4] + (" vm" if call[3:5] == ["tpu-vm", "describe"] else "")]
  return short
