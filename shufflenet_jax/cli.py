"""How every command starts and ends: flags in, one line out if something is wrong, and an exit status.

A command's module defines two functions and makes a `Command` of them, which is also its console script:

    def define_flags(flags): ...
    def main(flags): ...

    command = cli.Command(main, define_flags, required=("config",))

    if __name__ == "__main__":
      command()
"""

import faulthandler
import os
import sys
import traceback
from collections.abc import Callable

from absl import flags, logging

from shufflenet_jax import signals, startup
from shufflenet_jax.config import config_file
from shufflenet_jax.distributed import hosts
from shufflenet_jax.errors import FAILED, INTERRUPTED, CommandEnded, Preempted, UserError

_WITHOUT_TENSORFLOW = "without it, training and evaluation read arrays: --config.data.name=arrays, see README.md"
_WITHOUT_JAX = "without it, predict runs exported files: --checkpoint=FILE.onnx or FILE.tflite, see README.md"
_LIBRARIES = {  # top-level package -> the library's name, and what still works without it
  "tensorflow": ("TensorFlow", _WITHOUT_TENSORFLOW),
  "tensorflow_datasets": ("TensorFlow", _WITHOUT_TENSORFLOW),
  **dict.fromkeys(("jax", "jaxlib", "flax", "optax", "orbax"), ("JAX", _WITHOUT_JAX)),
  "google": ("google-cloud-storage", "without it, only local paths work"),
}
_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it


class _PathParser(flags.ArgumentParser):
  def __init__(self, name: str):
    self._name = name

  def parse(self, argument):
    from shufflenet_jax import storage  # not at the top: it imports the bucket client

    if not argument:
      raise UserError(f"--{self._name}= is empty; use . for this folder")
    return storage.normalize(argument, f"--{self._name}=")


def define_path(values: flags.FlagValues, name: str, help: str) -> None:
  """Defines a flag that takes a file or folder, as `storage.normalize` returns it: absolute, or gs://.

  All flags that take a path are defined by this function, so that all treat paths alike.
  """
  flags.DEFINE(_PathParser(name), name, None, help, values, flags.ArgumentSerializer())


def define_config(
  values: flags.FlagValues, help: str = "Config file, for instance configs/imagenet.py:scale=1.0,groups=3."
) -> None:
  """Defines --config=FILE.py[:ARGUMENTS] and, once it is parsed, a flag for each field of that config."""
  flags.DEFINE_string("config", None, help, values)


def _config_of_file(values: flags.FlagValues):
  path = values.config if "config" in values else None
  if path is None:
    return None
  from shufflenet_jax.config import fields  # not at the top: it imports JAX and Flax, and --help should answer at once

  config = config_file.load(path)
  try:
    fields.check_names(config)
  except UserError as error:
    raise UserError(f"--config={path}: {error}") from None
  return config


class Command:
  """A command: called without arguments, it reads the command line, runs, and exits with its status.

  A `CommandEnded` is printed as one line to stderr, and its `status` is the exit status. Ctrl-C ends the command at
  once, except within `signals.held`.
  """

  def __init__(
    self,
    main: Callable[..., int | None],
    define_flags: Callable[[flags.FlagValues], None],
    *,
    required: tuple[str, ...] = (),
    takes_arguments: bool = False,
    config_of: Callable = _config_of_file,
  ):
    """
    Args:
      main: is called with the flags, and with the positional arguments if the command takes any; returns the exit
        status, or None for 0. `flags.config` is the config, with the fields that the command line sets. A command
        that defines a flag `overrides` finds these fields there: dotted name -> value.
      define_flags: defines the command's flags on the `FlagValues` that it is given.
      required: flags that must be given.
      takes_arguments: whether there may be positional arguments.
      config_of: takes the flags that do not depend on the config, parsed; returns the config, or None.
    """
    self._main, self._define_flags, self._required = main, define_flags, required
    self._takes_arguments, self._config_of = takes_arguments, config_of

  def __call__(self) -> None:
    signals.end_at_once_on_interrupt()
    startup.prepare_process()
    faulthandler.enable()
    # Orbax and TFDS log every file that they touch, and also the errors that they raise.
    logging.use_absl_handler()
    logging.set_verbosity(logging.FATAL)
    try:
      values, arguments = self.parse(sys.argv)
      status = self._main(values, *([arguments] if self._takes_arguments else []))
      sys.stdout.flush()  # here, where a reader who has left is noticed
    except CommandEnded as ended:
      _end(ended)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      _exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
      os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
      _exit(_BROKEN_PIPE)
    except Exception as error:
      if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _LIBRARIES:
        library, remedy = _LIBRARIES[error.name.partition(".")[0]]
        _end(UserError(f"this needs {library}, which is not installed ({error}); {remedy}"))
      try:
        startup.check_devices()
      except CommandEnded as ended:
        _end(ended)
      traceback.print_exc()
      _exit(FAILED)
    else:
      hosts.end_process(status)

  def parse(self, argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Parses a command line, which begins with the program's name; --help prints the help and exits.

    Returns:
      The flags, with `config`, and the positional arguments.

    Raises:
      UserError: something in it is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Show this help.", values, short_name="h")
    self._define_flags(values)
    try:
      rest = _parse_known(values, argv)
      if values.help:
        print(sys.modules[self._main.__module__].__doc__)
        print(values.get_help())
        sys.exit(0)
      missing = [name for name in self._required if values[name].value is None]
      config = None if missing else self._config_of(values)
      (_, *arguments), overrides = config_file.override(config, rest, list(values), missing)
    except flags.CantOpenFlagFileError as error:
      cause = error.__context__  # the OSError
      raise UserError(f"--flagfile={cause.filename} cannot be read: {cause.strerror}") from None
    except flags.Error as error:
      flag, is_boolean, _ = str(error).rpartition(": ('Non-boolean argument")
      raise UserError(f"{flag} is not true or false" if is_boolean else str(error)) from None
    if missing:
      raise UserError(f"--{missing[0]} is missing; --help explains it")
    if arguments and not self._takes_arguments:
      raise UserError(f"unexpected argument {arguments[0]!r}; flags begin with --")
    if config is not None:
      if "config" not in values:
        flags.DEFINE_string("config", None, "", values)
      values["config"].value = config
      if "overrides" in values:
        values["overrides"].value = overrides
    return values, arguments


def _parse_known(values: flags.FlagValues, argv: list[str]) -> list[str]:
  """Parses the flags that are defined; returns the rest of the command line."""
  try:
    return values(argv, known_only=True)
  except UnicodeDecodeError:
    raise UserError("--flagfile is not a text file; it should hold one flag per line") from None
  except ValueError as error:  # of a boolean flag, --noNAME=VALUE
    raise UserError(str(error)) from None


def _end(ended: CommandEnded) -> None:
  hosts.tell(ended, ended.line)
  _exit(ended.status, together=isinstance(ended, Preempted))


def _exit(status: int, together: bool = False) -> None:
  hosts.leave(status, together)
  hosts.end_process(status)
