"""The ways in which requesting, using and deleting a slice can fail."""

from __future__ import annotations


class Preempted(Exception):
  """Google Cloud has taken the slice away."""


class Unreachable(Exception):
  """A worker does not answer, although the slice exists."""


class Stopped(Exception):
  """The launcher gives up: a limit was reached, or trying again would not help."""


class RequestFailed(Stopped):
  """Google Cloud did not provide a slice."""


class StillBilled(Exception):
  """A slice could not be deleted, and may be billed."""


def one_line(error: BaseException) -> str:
  """An error's message; the name of its class if it has none."""
  return str(error) or type(error).__name__.lower()
