"""Config files and the flags that override their fields: what is wrong is named with its place."""

import os

import pytest
from absl import flags

from shufflenet_jax import cli, evaluate
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.config import config_file
from shufflenet_jax.errors import UserError

QUICKSTART = "--config=configs/quickstart.py"


def parsed(arguments, config_of=None):
  """(config, positional arguments) of a command line, or the message that it ends with."""

  def define_flags(values):
    flags.DEFINE_string("checkpoint" if config_of else "config", None, "", flag_values=values)

  options = {"config_of": config_of} if config_of else {}
  command = cli.Command(print, define_flags, takes_arguments=True, **options)
  try:
    values, rest = command.parse(["train", *arguments])
  except UserError as error:
    return error.line
  return values.config, rest


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "\ndef get_config():\n  return undefined.x\n",
      "failed (FILE, line 3): NameError: name 'undefined' is not defined",
    ),
    ("\n\nx = {}['key']\n", "failed (FILE, line 3): KeyError: 'key'"),
    ("\ndef get_config(:\n", "failed (FILE, line 2): SyntaxError: invalid syntax"),
    ("import absent_module\n", "failed (FILE, line 1): ModuleNotFoundError: No module named 'absent_module'"),
    ("open('absent.txt')\n", "failed (FILE, line 1): FileNotFoundError: [Errno 2] No such file"),
    ("def get_config():\n  raise ValueError('batch=3 is odd')\n", "failed (FILE, line 2): ValueError: batch=3 is odd"),
    ("def get_config():\n  assert False\n", "failed (FILE, line 2): AssertionError"),
    ("import sys\nsys.exit(3)\n", "failed (FILE, line 2): SystemExit: 3"),
    ("e = ValueError('odd')\ne.add_note('see docs')\nraise e\n", "failed (FILE, line 3): ValueError: odd"),
    ("x = 1\n", "FILE defines no function get_config"),
    ("def get_config():\n  pass\n", "should return an ml_collections.ConfigDict, but returned NoneType"),
    ("def get_config(arguments):\n  pass\n", "get_config of FILE takes arguments; write --config=FILE:ARGUMENTS"),
  ],
)
def test_a_bug_in_a_config_file_is_named_with_its_line(tmp_path, text, message):
  path = tmp_path / "mine.py"
  path.write_text(text)
  with pytest.raises(UserError) as raised:
    config_file.load(str(path))
  assert str(raised.value).startswith(f"--config={path}")
  assert message.replace("FILE", str(path)) in str(raised.value)


def test_arguments_for_a_config_that_takes_none(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def get_config():\n  pass\n")
  with pytest.raises(UserError, match=r"get_config of .*mine.py takes no arguments; remove ':scale=1'"):
    config_file.load(f"{path}:scale=1")


@pytest.mark.parametrize(
  "path", ["absent.py", "configs", "", "\0", "gs://bucket/mine.py", "gs://bucket/mine.py:scale=1"]
)
def test_no_config_file(path):
  with pytest.raises(UserError, match="^--config="):
    config_file.load(path)


def test_arguments_may_be_a_path_in_a_bucket(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("import ml_collections\ndef get_config(x): return ml_collections.ConfigDict({'init_from': x})")
  assert config_file.load(f"{path}:gs://bucket/run").init_from == "gs://bucket/run"


def test_a_config_file_is_found_in_the_home_folder(tmp_path, monkeypatch):
  (tmp_path / "mine.py").write_text(
    "import ml_collections\ndef get_config(): return ml_collections.ConfigDict({'a': 1})"
  )
  monkeypatch.setenv("HOME", str(tmp_path))
  assert config_file.load("~/mine.py").a == 1


@pytest.mark.parametrize(
  ("arguments", "field", "value"),
  [
    (["--config.batch_size=8"], "batch_size", 8),
    (["--config.batch_size", "8"], "batch_size", 8),
    (["-config.batch_size=8"], "batch_size", 8),
    (["--config.batch_size=4", "--config.batch_size=8"], "batch_size", 8),
    (["--config.optimizer.learning_rate=1"], "optimizer.learning_rate", 1.0),
    (["--config.optimizer.learning_rate", "-1"], "optimizer.learning_rate", -1.0),
    (["--config.data.flip"], "data.flip", True),
    (["--noconfig.model.se"], "model.se", False),
    (["--config.data.flip=true"], "data.flip", True),
    (["--config.data.mean=1,2,3"], "data.mean", (1, 2, 3)),
    (["--config.data.mean=(1, 2, 3)"], "data.mean", (1, 2, 3)),
    (["--config.data.mean=1", "--config.data.mean=2", "--config.data.mean=3"], "data.mean", (1, 2, 3)),
    (["--config.data.data_dir=a=b"], "data.data_dir", "a=b"),
    (["--config.data.data_dir="], "data.data_dir", ""),
  ],
)
def test_overrides(arguments, field, value):
  for order in ([QUICKSTART, *arguments], [*arguments, QUICKSTART]):
    config, rest = parsed(order)
    for name in field.split("."):
      config = config[name]
    assert (config, type(config), rest) == (value, type(value), [])


def test_flags_behind_two_dashes_are_arguments():
  config, rest = parsed([QUICKSTART, "a", "--", "--config.batch_size=8"])
  assert (config.batch_size, rest) == (64, ["a", "--config.batch_size=8"])


@pytest.mark.parametrize(
  "arguments",
  [
    ["--checkpoint=PATH"],
    ["--checkpoint", "PATH"],
    ["-checkpoint=PATH"],
    ["-checkpoint", "PATH"],
    ["--checkpoint=absent", "--checkpoint=PATH"],
    ["--flagfile=FLAGFILE"],
    ["--flagfile", "FLAGFILE"],
  ],
)
def test_evaluate_finds_its_checkpoint_however_the_flag_is_written(run, tmp_path, arguments):
  flagfile = tmp_path / "flags"
  flagfile.write_text(f"# of the last run\n--checkpoint={run.workdir}\n")
  arguments = [a.replace("PATH", run.workdir).replace("FLAGFILE", str(flagfile)) for a in arguments]
  config, _ = parsed(["--config.data.eval_split=train", *arguments], evaluate.config_of_checkpoint)
  assert checkpoint.to_json(config.model) == checkpoint.to_json(run.config.model)
  assert config.data.eval_split == "train"
  said = parsed([*arguments, "--config.data.evalsplit=train"], evaluate.config_of_checkpoint)
  assert (
    said == "config has no field data.evalsplit; did you mean --config.data.eval_split or --config.data.train_split?"
  )
  said = parsed([*arguments, QUICKSTART], evaluate.config_of_checkpoint)
  assert said.startswith("--config takes no file here: the config is the checkpoint's own")


def test_path_flags_expand_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  values = flags.FlagValues()
  cli.define_path(values, "workdir", "")
  values(["train", "--workdir=~/runs/1"])
  assert values.workdir == str(tmp_path / "runs/1")
  values(["train", "--workdir=runs/1"])
  assert values.workdir == os.path.abspath("runs/1")
  values(["train", "--workdir=gs://bucket/runs/1/"])
  assert values.workdir == "gs://bucket/runs/1"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      "c.optimizer.learning_rte = 3.0",
      "config.optimizer.learning_rte is not a field .*; did you mean optimizer.lear",
    ),
    ("c.model.scal = 2.0", "config.model.scal is not a field of a config for shufflenet_v1; did you mean model.scale?"),
    ("del c.data.mean", "config.data.mean is missing; begin with fields.default_config()"),
    ("del c.model", "config.model.network=None is not one of shufflenet_v1"),
    ("c = type(c)({'a': 1})", "config.model.network=None is not one of shufflenet_v1"),
  ],
)
def test_a_config_file_has_every_field_and_no_other(tmp_path, change, message):
  (tmp_path / "mine.py").write_text(
    "from shufflenet_jax.config import fields\n"
    f"def get_config():\n  c = fields.default_config()\n  {change}\n  return c\n"
  )
  with pytest.raises(UserError, match=f"^--config={tmp_path}/mine.py: {message}"):
    cli.Command(print, cli.define_config).parse(["train", f"--config={tmp_path}/mine.py"])


@pytest.mark.parametrize("flag", ["--noconfig.model.se=1", "--nojson=1"])
def test_a_value_for_the_negation_of_a_flag_is_refused(flag):
  def define_flags(values):
    cli.define_config(values)
    flags.DEFINE_bool("json", False, "", values)

  with pytest.raises(UserError, match="does not take an argument"):
    cli.Command(print, define_flags).parse(["train", "--config=configs/quickstart.py", flag])
