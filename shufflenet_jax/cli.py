"""How every command starts: flags in, one clear line out when something is wrong."""

import contextlib
import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from shufflenet_jax.errors import UserError


@contextlib.contextmanager
def _one_line(kinds: tuple[type[Exception], ...]):
  try:
    yield
  except kinds as error:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # str() would quote it
    if "Traceback (most recent call last)" in text:  # of a config file: its last line says it
      text = text.strip().splitlines()[-1].partition(": ")[2]
    if "\\n" in text and text[0] == text[-1] == "'":  # a KeyError's repr within another error
      text = text[1:-1].replace("\\n", ": ").replace("\\'", "'")
    text = text.removeprefix("Configuration is not available because of an earlier failure to load: ")
    print(f"error: {' '.join(text.split())}", file=sys.stderr, flush=True)
    sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
  wrong = (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError)
  with _one_line(wrong):
    rest = flags.FLAGS(argv)
    if "config" in flags.FLAGS:
      # A config file that failed to load says so only when a field is asked for.
      getattr(flags.FLAGS.config, "is_locked", None)
    return rest


def run(main: Callable[[list[str]], int | None]) -> None:
  """Parses the flags and calls `main(positional_arguments)`; exits with its status, or 2 for a `UserError`."""
  # On a machine without a TPU, libtpu and JAX would print how they looked for one.
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")

  if {"--help", "-help", "-h"} & set(sys.argv[1:]):
    print(sys.modules["__main__"].__doc__)
    print(flags.FLAGS.main_module_help())
    sys.exit(0)

  def guarded(argv):
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it writes
    with _one_line((UserError,)):
      return main(argv[1:])

  app.run(guarded, flags_parser=_parse)
