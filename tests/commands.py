"""Runs the package's commands."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def command(module, *arguments):
  """`python -m shufflenet_jax.module`, compiling as quickly as these tests do."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  return subprocess.run(
    [sys.executable, "-m", f"shufflenet_jax.{module}", *map(str, arguments)],
    cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
  )  # fmt: skip
