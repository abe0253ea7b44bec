"""How every command starts: flags in, one clear line out when something is wrong."""

import contextlib
import glob
import os
import sys
import traceback
from collections.abc import Callable

from absl import app, flags, logging

from shufflenet_jax import host_memory, signals
from shufflenet_jax.config import config_file
from shufflenet_jax.distributed import hosts
from shufflenet_jax.errors import FAILED, INTERRUPTED, WRONG, Preempted, RunFailed, UserError

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it
_required: list[str] = []


class _PathParser(flags.ArgumentParser):
  def __init__(self, name: str):
    self._name = name

  def parse(self, argument):
    from shufflenet_jax import storage  # here, as it imports the clients of buckets

    if not argument:
      raise UserError(f"--{self._name}= is empty; . is this folder")
    return storage.normalize(argument, f"--{self._name}=")


def define_path(name: str, default: str | None, help: str, values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines a flag that takes a file or folder, as `storage.normalize` returns it: absolute, or gs://.

  All flags that take a path are defined by this function, so that all treat paths alike.
  """
  flags.DEFINE(_PathParser(name), name, default, help, values, flags.ArgumentSerializer())


def define_config(
  help: str = "Config file, for instance configs/imagenet.py:scale=1.0,groups=3.",
  values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Defines --config=FILE.py[:ARGUMENTS] and a flag for each field of that config; FLAGS.config is the config."""
  flags.DEFINE_string("config", None, help, values)


def require(*names: str) -> None:
  """Makes flags required. Unlike with absl's own function, a misspelt flag is named before the one that is missing."""
  _required.extend(names)


def refuse_arguments(arguments: list[str]) -> None:
  """Raises a UserError if there is a positional argument, for commands that take none."""
  if arguments:
    raise UserError(f"unexpected argument {arguments[0]!r}; flags begin with --")


def _known(argv: list[str], values: flags.FlagValues) -> list[str]:
  """Parses the flags that are defined; returns the program and the other arguments."""
  try:
    return values(argv, known_only=True)
  except flags.CantOpenFlagFileError as error:
    cause = error.__context__  # the OSError
    raise UserError(f"--flagfile={cause.filename} cannot be read: {cause.strerror}") from None
  except UnicodeDecodeError:
    raise UserError("--flagfile: the file is no text; it should hold a flag a line") from None


def _config_of_file(values: flags.FlagValues):
  path = values.config if "config" in values else None
  return None if path is None else config_file.load(path)


def _end(status: int, together: bool = False):
  hosts.leave(status, together)
  sys.exit(status)


@contextlib.contextmanager
def _one_line(*kinds: type[Exception]):
  try:
    yield
  except kinds as error:
    hosts.tell(error, " ".join(str(error).split()))
    _end(getattr(error, "status", WRONG), together=isinstance(error, Preempted))


def parse(argv: list[str], values: flags.FlagValues = flags.FLAGS, config_of: Callable = _config_of_file) -> list[str]:
  """Parses a command line; exits with one line to stderr and status 2 where something in it is wrong.

  Args:
    argv: the program and its arguments.
    values: the flags. Afterwards `values.config` is the config, with the fields that the command line sets.
    config_of: gives the config (or None) once all flags but those of its fields are parsed.

  Returns:
    The program and the positional arguments.
  """
  with _one_line(flags.Error, UserError):
    rest = _known(argv, values)
    missing = [name for name in _required if name in values and values[name].value is None]
    config = None if missing else config_of(values)
    arguments = config_file.override(config, rest, list(values), missing)
    if missing:
      raise UserError(f"--{missing[0]} is missing; --help explains it")
    if config is not None:
      if "config" not in values:
        flags.DEFINE_string("config", None, "", flag_values=values)
      values["config"].value = config
    return arguments


def run(main: Callable[[list[str]], int | None], config_of: Callable = _config_of_file) -> None:
  """Parses the flags and calls `main(positional_arguments)`; exits with its status, or that of a `UserError`.

  Ctrl-C ends the command at once, except where it uses `signals.held`.

  Args:
    main: the command.
    config_of: where FLAGS.config comes from, see `parse`.
  """
  for stream in (sys.stdout, sys.stderr):
    # What a terminal or file cannot encode is printed as \xfc, in place of an error at the end of a long run.
    stream.reconfigure(errors="backslashreplace")
  signals.end_at_once_on_interrupt()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are no news to users: it raises errors
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it decodes and resizes only: no gain, a warning each start
  if not _accelerator_devices():
    # No accelerator: spares the seconds and warnings of libtpu looking for one.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  if {"--help", "-help", "-h"} & set(sys.argv[1:]):
    print(sys.modules["__main__"].__doc__)
    print(flags.FLAGS.main_module_help())
    sys.exit(0)
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    host_memory.use_huge_pages()

  def guarded(argv):
    # Orbax and TFDS tell of every file they touch, and of errors with their threads' stacks; those are raised, too.
    logging.set_verbosity(logging.FATAL)
    try:
      with _one_line(UserError):
        return main(argv[1:])
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      _end(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output wants no more of it
      os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
      _end(_BROKEN_PIPE)
    except Exception:
      with _one_line(UserError):
        _check_platform()
      if not hosts.joined():
        raise
      traceback.print_exc()
      hosts.leave(FAILED)

  app.run(guarded, flags_parser=lambda argv: parse(argv, config_of=config_of))


def _accelerator_devices() -> list[str]:
  return [path for pattern in ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*", "/dev/kfd") for path in glob.glob(pattern)]


def _check_platform() -> None:
  """Called after an unexpected error: raises a `UserError` if JAX has no devices at all, which explains the error."""
  jax = sys.modules.get("jax")
  if jax is None:
    return
  try:
    jax.devices()
  except Exception as error:  # RuntimeError, and for cuda without its plugin an AssertionError without a text
    platforms = os.environ.get("JAX_PLATFORMS", "")
    reason = f" ({error})" if str(error) else ""
    # A device that is there may be in use by a process that is about to end.
    kind = RunFailed if _accelerator_devices() else UserError
    raise kind(
      f"JAX finds no devices for JAX_PLATFORMS={platforms}{reason}; unset it to use what this machine has"
    ) from error
