"""Config files, and the command-line flags that override their fields.

ml_collections has flags for this, but they report a mistake as whatever exception it leads to, without the field or the
line. Here a config is loaded first, and each of its fields then becomes an ordinary absl flag.
"""

import ast
import contextlib
import difflib
import importlib.machinery
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Iterator

import ml_collections
from absl import flags

from shufflenet_jax.config import shipped
from shufflenet_jax.errors import CommandEnded, UserError

_MODULE = "loaded_config_file"


def load(argument: str) -> ml_collections.ConfigDict:
  """Runs `get_config` of a config file.

  Args:
    argument: the value of --config: `FILE.py`, or `FILE.py:ARGUMENTS` to call `get_config` with these arguments.

  Raises:
    UserError: there is no such file, it fails, or it returns no config. The message names the file and the line.
  """
  if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", argument):
    raise UserError(
      f"--config={argument}: a config is a program and is read from a local path only; copy it to this machine"
      " and give its path"
    )
  path, colon, given = argument.partition(":")
  path = shipped.find(path)
  with _errors_of(argument, path):
    get_config = getattr(_run_file(argument, path), "get_config", None)
  if not callable(get_config):
    raise UserError(f"--config={argument}: {path} defines no function get_config, which should return the config")
  arguments = [given] if colon else []
  try:
    inspect.signature(get_config).bind(*arguments)
  except TypeError:
    remedy = f"remove ':{given}'" if colon else f"write --config={path}:ARGUMENTS"
    raise UserError(
      f"--config={argument}: get_config of {path} takes {'no arguments' if colon else 'arguments'}; {remedy}"
    ) from None
  with _errors_of(argument, path):
    config = get_config(*arguments)
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"--config={argument}: get_config of {path} should return an ml_collections.ConfigDict, but returned"
      f" {type(config).__name__}"
    )
  return config.lock()


def _run_file(argument: str, path: str) -> types.ModuleType:
  try:
    with open(path, "rb"):  # otherwise an unreadable file would look like an OSError that its code raises
      pass
  except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"--config={argument}: {path} cannot be read: {reason}; name a config file") from None
  spec = importlib.util.spec_from_loader(_MODULE, importlib.machinery.SourceFileLoader(_MODULE, path))
  module = importlib.util.module_from_spec(spec)
  sys.modules[_MODULE] = module  # dataclasses look up the module that they are defined in
  spec.loader.exec_module(module)
  return module


@contextlib.contextmanager
def _errors_of(argument: str, path: str) -> Iterator[None]:
  """Turns an exception of a config file into a UserError that has its place and message, like the end of a traceback.

  The place is the innermost line of the config file, or of a file beside it that it imports.
  """
  try:
    yield
  except CommandEnded as ended:
    raise type(ended)(f"--config={argument}: {ended}") from None
  except (Exception, SystemExit) as error:
    described = traceback.TracebackException.from_exception(error)
    described.__notes__ = None  # they would follow the message
    own = [
      f for f in described.stack if pathlib.Path(f.filename).parent.resolve() == pathlib.Path(path).parent.resolve()
    ]
    file, line = (own[-1].filename, own[-1].lineno) if own else (path, None)
    if isinstance(error, SyntaxError) and error.filename:
      file, line = error.filename, error.lineno
    place = f"{file}, line {line}" if line else file
    *_, message = described.format_exception_only()  # the last line: "NameError: name 'x' is not defined"
    raise UserError(f"--config={argument} failed ({place}): {message.rstrip()}") from error


def _with_message(base: type[flags.ArgumentParser], message: str) -> type[flags.ArgumentParser]:
  """One of absl's parsers, with our own message for a value that it refuses."""

  class Parser(base):
    def parse(self, argument):
      try:
        return super().parse(argument)
      except (TypeError, ValueError):
        raise ValueError(message) from None

  return Parser


_Integer = _with_message(flags.IntegerParser, "must be a whole number")
_Number = _with_message(flags.FloatParser, "must be a number")
_Boolean = _with_message(flags.BooleanParser, "must be true or false")


class _Tuple(flags.ArgumentParser):
  """`(1, 2, 3)`, `1,2,3` or one value."""

  def parse(self, argument):
    if isinstance(argument, tuple):
      return argument
    try:
      value = ast.literal_eval(argument)
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
      raise ValueError("must be values separated by commas, such as (1,2,3)") from None
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


_PARSERS = {int: _Integer, float: _Number, bool: _Boolean, str: flags.ArgumentParser, tuple: _Tuple}


def _fields(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, ml_collections.ConfigDict]]:
  """(dotted name of a field or section, the section that holds it), in the config's order."""
  for name in config:
    yield prefix + name, config
    if isinstance(config[name], ml_collections.ConfigDict):
      yield from _fields(config[name], f"{prefix}{name}.")


def override(
  config: ml_collections.ConfigDict | None, argv: list[str], known: list[str], missing: list[str]
) -> tuple[list[str], dict]:
  """Sets the fields of a config that a command line names, as --config.optimizer.learning_rate=0.1.

  Args:
    config: is changed in place; None if the command has none.
    argv: the program's name and the arguments that no other flag has taken.
    known: the names of the other flags, of which one is suggested for an unknown flag.
    missing: required flags that are not given, which may be why there is no config.

  Returns:
    The program and the positional arguments; and the fields that were set: dotted name -> value.

  Raises:
    flags.Error: a value of the wrong type.
    UserError: an unknown flag or field. The message suggests similar names.
  """
  values, holders = flags.FlagValues(), {}
  for name, holder in _fields(config or {}):
    field = name.rpartition(".")[2]
    parser = _PARSERS.get(holder.get_type(field))
    if parser is None:
      continue
    holders[name] = holder
    flag = flags.MultiFlag if parser is _Tuple else flags.Flag
    flags.DEFINE_flag(
      flag(
        parser=parser(),
        serializer=flags.ArgumentSerializer(),
        name=f"config.{name}",
        default=None,
        help_string="",
        boolean=parser is _Boolean,
      ),
      values,
    )
  try:
    positional = values(argv)
  except ValueError as error:  # of a boolean flag, --noNAME=VALUE
    raise UserError(str(error)) from None
  except flags.UnrecognizedFlagError as error:
    if config is None and missing and error.flagname.startswith("config."):
      raise UserError(f"--{missing[0]} is missing; --help explains it") from None
    raise UserError(_unknown(error.flagname, config, holders, known)) from None
  given = {}
  for name, holder in holders.items():
    flag = values[f"config.{name}"]
    if flag.present:
      # A tuple may be given as a whole or by repeating the flag.
      given[name] = sum(flag.value, ()) if isinstance(flag.parser, _Tuple) else flag.value
      holder[name.rpartition(".")[2]] = given[name]
  return positional, given


def _unknown(name: str, config, holders: dict, known: list[str]) -> str:
  """The message for a flag that does not exist."""
  if name == "config" and config is not None:
    return "--config takes no file here: the config is the checkpoint's own; --config.FIELD=VALUE changes a field"
  if not name.startswith("config."):
    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no flag --{name}" + (f"; did you mean --{near[0]}?" if near else "; --help lists the flags")
  field = name.removeprefix("config.")
  names = [n for n, _ in _fields(config or {})]
  if field in names:
    section = [n for n in holders if n.startswith(f"{field}.")]
    if section:
      return f"--{name} is a section; set one of its fields, for instance --config.{section[0]}=VALUE"
    return f"--{name} cannot be set by a flag; set it in the config file"
  if not names:
    return f"--{name} needs a config; give --config=FILE.py" if "config" in known else f"there is no flag --{name}"
  from shufflenet_jax.config import fields  # which imports the networks

  if field in fields.FIELDS:
    return fields.of_another_task(field, config.get("task", fields.DEFAULT_TASK))
  last = field.rpartition(".")[2]
  # First the fields of that name in other sections, then those with a similar spelling.
  near = [n for n in holders if n.rpartition(".")[2] == last]
  near = near or difflib.get_close_matches(field, holders, n=2, cutoff=0.7)
  last_names = {n.rpartition(".")[2]: n for n in holders}
  near = near or [last_names[n] for n in difflib.get_close_matches(last, last_names, n=2, cutoff=0.7)]
  if near:
    return f"config has no field {field}; did you mean {' or '.join(f'--config.{n}' for n in near[:2])}?"
  sections = sorted({n.partition(".")[0] for n in names})
  return f"config has no field {field}; it has {', '.join(sections)}"
