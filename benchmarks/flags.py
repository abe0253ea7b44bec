"""Types of command-line flags, for `argparse`: a wrong value ends the command before anything is measured."""

import argparse
import os
from collections.abc import Callable


def output_file(path: str) -> str:
  """A file that can be written. It is not made yet, so that a command that fails leaves none."""
  folder = os.path.dirname(path) or "."
  if os.path.isdir(path):
    raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
  if not os.path.isdir(folder):
    raise argparse.ArgumentTypeError(f"{path} cannot be written: there is no folder {folder}")
  if not os.access(path if os.path.exists(path) else folder, os.W_OK):
    raise argparse.ArgumentTypeError(f"{path} cannot be written: no permission")
  return path


def at_least(least: float, kind: type = int) -> Callable:
  """A number of `kind` that is not below `least`."""

  def parse(text: str):
    value = kind(text)
    if not value >= least:
      raise argparse.ArgumentTypeError(f"{text} must be {least} or more")
    return value

  parse.__name__ = kind.__name__  # argparse names it where `kind` cannot read the text
  return parse
