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
    # The first line says it; a KeyError's str() is its repr.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    print(f"error: {' '.join(text.split())}", file=sys.stderr, flush=True)
    sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
  wrong = (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError)
  with _one_line(wrong):
    rest = flags.FLAGS(argv)
    if flags.FLAGS.help or flags.FLAGS.helpshort:
      print(sys.modules["__main__"].__doc__)
      print("Flags:")
      print(flags.FLAGS.main_module_help())
      sys.exit(0)
    return rest


def run(main: Callable[[list[str]], int | None]) -> None:
  """Parses the flags and calls `main(positional_arguments)`; exits with its status, or 2 for a `UserError`."""
  # On a machine without a TPU, libtpu and JAX would print how they looked for one.
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")

  def guarded(argv):
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it writes
    with _one_line((UserError,)):
      return main(argv[1:])

  app.run(guarded, flags_parser=_parse)
