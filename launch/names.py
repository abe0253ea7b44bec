"""Checks names and numbers against what Google Cloud allows, before anything is run."""

from __future__ import annotations

import argparse
import re

from shufflenet_jax.errors import UserError

# flag -> (pattern, description)
_PATTERNS = {
  "name": (
    r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
    "lower-case letters, digits and dashes, for example shufflenet-1",
  ),
  "zone": (r"[a-z]+(-[a-z]+)+[0-9]+-[a-z]", "a zone, for example us-central1-a"),
  "project": (r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", "a project's ID, for example my-project-123"),
  "bucket": (r"gs://[a-z0-9][-a-z0-9._]{1,220}[a-z0-9](/[-A-Za-z0-9._=]+)*/?", "gs://BUCKET or gs://BUCKET/FOLDER"),
  "namespace": (r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and dashes"),
  "service_account": (r"[a-z0-9][-a-z0-9@.]*", "a service account's name"),
  "image": (
    r"[a-z0-9][-a-z0-9._:/@]+",
    "an image, for example us-docker.pkg.dev/PROJECT/REPOSITORY/shufflenet_jax:TAG",
  ),
}


def check(flag: str, value: str | None) -> None:
  """Raises a UserError if a flag's value is neither None nor of the form that the flag requires."""
  pattern, words = _PATTERNS[flag]
  if value is not None and not re.fullmatch(pattern, value):
    raise UserError(f"--{flag}={value!r} must be {words}")


def check_numbers(flags: argparse.Namespace, *wanted: str) -> None:
  """Raises a UserError if one of these flags is below 0, above a million or NaN; skips those that the command lacks."""
  for name in wanted:
    if not 0 <= getattr(flags, name, 0) <= 1_000_000:
      raise UserError(f"--{name}={getattr(flags, name)} must be 0 or more, and at most a million")


def check_gcloud_flags(flags: list[str]) -> None:
  """Raises a UserError for a flag that the launcher sets itself, without which it could not find the slice again."""
  own = (
    "zone", "project", "node-id", "node-count", "node-prefix", "accelerator-type", "topology", "type",
    "runtime-version", "async", "spot", "reserved", "best-effort", "guaranteed",
    "valid-until-duration", "valid-until-time", "format", "quiet", "flags-file",
  )  # fmt: skip
  for flag in flags:
    name = flag[2:].partition("=")[0]
    if not re.fullmatch(r"--[a-z][a-z0-9-]*(=.*)?", flag, re.DOTALL) or any(o.startswith(name) for o in own):
      raise UserError(
        f"--gcloud_flag={flag} must be a flag that the launcher does not set, for example =--network=NAME"
      )


def flag_value(arguments: list[str], name: str) -> str | None:
  """The value of the last `--name=value` or `--name value` in a training command line; None if there is none."""
  value = None
  for i, argument in enumerate(arguments):
    if argument == f"--{name}" and i + 1 < len(arguments):
      value = arguments[i + 1]
    elif argument.startswith(f"--{name}="):
      value = argument.partition("=")[2]
  return value


def check_training(arguments: list[str], distributed: bool) -> list[str]:
  """Checks the arguments of `python -m shufflenet_jax.train`; returns them, with --distributed added if needed.

  Args:
    arguments: everything after --.
    distributed: whether several hosts train together.

  Raises:
    UserError: --config or --workdir is missing or malformed, or --nodistributed is given for several hosts.
  """
  for name in ("config", "workdir"):
    if not flag_value(arguments, name):
      raise UserError(f"--{name} is missing after --; for example -- --config=configs/imagenet.py --workdir=gs://B/run")
  config, workdir = flag_value(arguments, "config"), flag_value(arguments, "workdir")
  if not config.partition(":")[0].endswith(".py"):
    raise UserError(f"--config={config} must be a Python file, for example configs/imagenet.py:scale=1.0,groups=3")
  if workdir.startswith("gs:") and not re.fullmatch(_PATTERNS["bucket"][0], workdir):
    raise UserError(f"--workdir={workdir} must be gs://BUCKET/FOLDER")
  alone = [a for a in arguments if re.fullmatch(r"--?nodistributed|--?distributed=(false|f|0)", a, re.IGNORECASE)]
  if distributed and alone:
    raise UserError(f"{alone[0]} after --: the hosts of a slice train together; omit it")
  if distributed and "--distributed" not in arguments:
    return ["--distributed", *arguments]
  return arguments
