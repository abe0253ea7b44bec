"""How every command starts: flags in, one clear line out when something is wrong."""

import contextlib
import glob
import os
import signal
import sys
import traceback
from collections.abc import Callable

from absl import app, flags, logging

from shufflenet_jax import host_memory, hosts
from shufflenet_jax.errors import FAILED, WRONG, UserError


def _end(status: int):
  hosts.leave(status)
  sys.exit(status)


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
    hosts.tell(error, " ".join(text.split()))
    _end(getattr(error, "status", WRONG))


# What a wrong flag, config file or override can raise: a config file is the user's code.
_WRONG_FLAGS = (flags.Error, UserError, AttributeError, ImportError, LookupError, NameError, OSError, SyntaxError)
_WRONG_FLAGS += (TypeError, ValueError)


def parse(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
  """Parses a command line; returns what is no flag, or exits with one line to stderr and status 2."""
  with _one_line(_WRONG_FLAGS):
    rest = values(argv)
    if "config" in values:
      # A config file that failed to load says so only when a field is asked for.
      getattr(values.config, "is_locked", None)
    return rest


def run(main: Callable[[list[str]], int | None], define_flags: Callable[[], None] = lambda: None) -> None:
  """Parses the flags and calls `main(positional_arguments)`; exits with its status, or that of a `UserError`.

  Args:
    main: the command.
    define_flags: called before parsing, where what the flags are takes some work.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are no news to users: it raises errors
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it decodes and resizes only: no gain, a warning each start
  if not any(map(glob.glob, ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*", "/dev/kfd"))):
    # No accelerator: spares the seconds and warnings of libtpu looking for one.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  if {"--help", "-help", "-h"} & set(sys.argv[1:]):
    print(sys.modules["__main__"].__doc__)
    print(flags.FLAGS.main_module_help())
    sys.exit(0)
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    host_memory.use_huge_pages()

  with _one_line(_WRONG_FLAGS):
    define_flags()

  def guarded(argv):
    # Orbax and TFDS tell of every file they touch, and of errors with their threads' stacks; those are raised, too.
    logging.set_verbosity(logging.FATAL)
    try:
      with _one_line((UserError,)):
        return main(argv[1:])
    except KeyboardInterrupt:
      print("interrupted; what was saved before stays", file=sys.stderr)
      _end(128 + signal.SIGINT)
    except BrokenPipeError:  # whoever read the output wants no more of it
      os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
      _end(128 + signal.SIGPIPE)
    except Exception:
      if not hosts.joined():
        raise
      traceback.print_exc()
      hosts.leave(FAILED)

  app.run(guarded, flags_parser=parse)
