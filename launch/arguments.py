"""The command lines of both launchers: flags, then "--", then the arguments of training."""

from __future__ import annotations

import argparse

from shufflenet_jax.errors import UserError


class OneLineParser(argparse.ArgumentParser):
  """Reports an error as one line, in a UserError."""

  def error(self, message: str):
    raise UserError(f"{message}; see {self.prog} --help")


def split(argv: list[str]) -> tuple[list[str], list[str]]:
  """(the launcher's flags, everything after --)."""
  at = argv.index("--") if "--" in argv else len(argv)
  return argv[:at], argv[at + 1 :]
