"""Config files, and the command-line flags that override their fields.

ml_collections' own flags for this report a mistake as whatever exception it led to, without the field or the line. Here
a config is loaded first, and each of its fields then becomes an ordinary flag of absl.
"""

import ast
import difflib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator

import ml_collections
from absl import flags

from shufflenet_jax.config import recipes
from shufflenet_jax.errors import UserError

_MODULE = "loaded_config_file"


def load(argument: str) -> ml_collections.ConfigDict:
  """Runs `get_config` of a config file.

  Args:
    argument: as --config takes it, `FILE.py` or `FILE.py:ARGUMENTS`, where `get_config` gets what follows the colon.

  Raises:
    UserError: there is no such file, it fails, or it gives no config. The message names the file and the line.
  """
  if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", argument):
    raise UserError(
      f"--config={argument}: a config is a program and is read from a local path only; copy it to this machine"
      " and give its path"
    )
  path, colon, given = argument.partition(":")
  path = recipes.find(path)
  module = _run_file(argument, path)
  get_config = getattr(module, "get_config", None)
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
  try:
    config = get_config(*arguments)
  except UserError:
    raise
  except Exception as error:
    raise _failed(argument, path, error) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"--config={argument}: get_config of {path} should return an ml_collections.ConfigDict, and returned"
      f" {type(config).__name__}"
    )
  return config.lock()


def _run_file(argument: str, path: str):
  spec = importlib.util.spec_from_loader(_MODULE, importlib.machinery.SourceFileLoader(_MODULE, path))
  module = importlib.util.module_from_spec(spec)
  sys.modules[_MODULE] = module  # dataclasses look up the module that they are defined in
  try:
    with open(path, "rb"):  # or an OSError within the file could be taken for one of the file
      pass
  except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"--config={argument}: {path} cannot be read: {reason}; name a config file") from None
  try:
    spec.loader.exec_module(module)
  except UserError:
    raise
  except Exception as error:
    raise _failed(argument, path, error) from error
  return module


def _failed(argument: str, path: str, error: Exception) -> UserError:
  """Names the innermost line of the config file, or of a file that it imports from beside it."""
  where, line = path, None
  if isinstance(error, SyntaxError) and error.filename:
    where, line, reason = error.filename, error.lineno, error.msg
  else:
    folder = os.path.dirname(os.path.abspath(path))
    for frame in traceback.extract_tb(error.__traceback__):
      if os.path.dirname(os.path.abspath(frame.filename)) == folder:
        where, line = frame.filename, frame.lineno
    # A ValueError of a config file is its own message to its users.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # str() would quote it
    kind = type(error).__name__
    reason = (text if isinstance(error, ValueError) and text else f"{kind}: {text}") if text else kind
  place = f"{where}, line {line}" if line else where
  return UserError(f"--config={argument} failed ({place}): {reason}")


def _worded(base: type[flags.ArgumentParser], words: str) -> type[flags.ArgumentParser]:
  """One of absl's parsers, with words of ours for what is wrong."""

  class Parser(base):
    def parse(self, argument):
      try:
        return super().parse(argument)
      except (TypeError, ValueError):
        raise ValueError(words) from None

  return Parser


_Whole = _worded(flags.IntegerParser, "must be a whole number")
_Number = _worded(flags.FloatParser, "must be a number")
_YesNo = _worded(flags.BooleanParser, "must be true or false")


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


_PARSERS = {int: _Whole, float: _Number, bool: _YesNo, str: flags.ArgumentParser, tuple: _Tuple}


def _fields(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, ml_collections.ConfigDict]]:
  """(dotted name of a field or section, the section that holds it), in the config's order."""
  for name in config:
    yield prefix + name, config
    if isinstance(config[name], ml_collections.ConfigDict):
      yield from _fields(config[name], f"{prefix}{name}.")


def override(
  config: ml_collections.ConfigDict | None, argv: list[str], known: list[str], missing: list[str]
) -> list[str]:
  """Sets the fields of a config that a command line names, as --config.optimizer.learning_rate=0.1.

  Args:
    config: is changed; None if the command has none.
    argv: the program, and what is no other flag.
    known: the names of the other flags, to suggest one in place of an unknown flag.
    missing: required flags that are not given, without which there may be no config.

  Returns:
    The program and the positional arguments.

  Raises:
    flags.Error: a value of the wrong type.
    UserError: an unknown flag or field. Names those that are near.
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
        boolean=parser is _YesNo,
      ),
      values,
    )
  try:
    positional = values(argv)
  except flags.UnrecognizedFlagError as error:
    if config is None and missing and error.flagname.startswith("config."):
      raise UserError(f"--{missing[0]} is missing; --help explains it") from None
    raise UserError(_unknown(error.flagname, config, holders, known)) from None
  for name, holder in holders.items():
    flag = values[f"config.{name}"]
    if flag.present:
      # A tuple may be given as a whole or by repeating the flag.
      value = sum(flag.value, ()) if isinstance(flag.parser, _Tuple) else flag.value
      holder[name.rpartition(".")[2]] = value
  return positional


def _unknown(name: str, config, holders: dict, known: list[str]) -> str:
  """What is wrong with a flag that is none."""
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
  last = field.rpartition(".")[2]
  # First the fields of that name in other sections, then those that are spelled alike.
  near = [n for n in holders if n.rpartition(".")[2] == last]
  near = near or difflib.get_close_matches(field, holders, n=2, cutoff=0.7)
  last_names = {n.rpartition(".")[2]: n for n in holders}
  near = near or [last_names[n] for n in difflib.get_close_matches(last, last_names, n=2, cutoff=0.7)]
  if near:
    return f"config has no field {field}; did you mean {' or '.join(f'--config.{n}' for n in near[:2])}?"
  sections = sorted({n.partition(".")[0] for n in names})
  return f"config has no field {field}; it has {', '.join(sections)}"
