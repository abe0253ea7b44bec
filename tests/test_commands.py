"""Commands as a user runs them: statuses, one-line errors, JSON."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from configs import imagenet
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.data import export
from shufflenet_jax.errors import UserError
from shufflenet_jax.prediction.predictor import Predictor
from shufflenet_jax.train import command as train_command
from shufflenet_jax.training.loop import train
from tests.commands import ROOT, command


@pytest.mark.parametrize(
  ("overrides", "words"),
  [
    (["--config.optimizer.learning_rat=1"], ["learning_rat", "learning_rate"]),
    (["--config.batch_size=many"], ["many"]),
    (["--config=configs/absent.py"], ["configs/absent.py"]),
    (["--config=configs/imagenet.py:width=2"], ["width", "groups, scale, shuffle"]),
    (["--config=configs/imagenet.py:groups=three"], ["groups=three"]),
    (["--config=configs/imagenet.py:network=lenet"], ["lenet", "mobilenet_v1"]),
    (["stray"], ["stray"]),
    (["--config.learning_rate=1"], ["no field learning_rate; did you mean --config.optimizer.learning_rate?"]),
    (["--config.optimiser.momentum=1"], ["no field optimiser.momentum; did you mean --config.optimizer.momentum?"]),
    (["--config.datadir=x"], ["no field datadir; did you mean --config.data.data_dir?"]),
    (
      ["--config=configs/boxes.py", "--config.data.color_jitter=0.4"],
      ["config.data.color_jitter is for classification; this config has task=detection"],
    ),
    (
      ["--config=configs/imagenet.py", "--config.detection.crop=7"],
      ["config.detection.crop is for detection; this config has task=classification"],
    ),
    (["--config.batch_size=1.5"], ["--config.batch_size=1.5: must be a whole number"]),
    (["--config.optimizer.momentum=much"], ["--config.optimizer.momentum=much: must be a number"]),
    (["--config.data.flip=perhaps"], ["--config.data.flip=perhaps: must be true or false"]),
    (["--config.data.mean=(1,2"], ["--config.data.mean=(1,2: must be values separated by commas"]),
    (["--config.optimizer=1"], ["--config.optimizer is a section", "--config.optimizer.decay=VALUE"]),
    (["--config.optimizer.decay.x=1"], ["no field optimizer.decay.x; did you mean --config.optimizer.decay"]),
    (["--config.batch_size"], ["Missing value for flag --config.batch_size"]),
    (["--distributed=5"], ["flag --distributed=5 is not true or false"]),
    (["--wrokdir=x"], ["no flag --wrokdir; did you mean --workdir?"]),
    (["--workdir=s3://bucket/run"], ["--workdir=s3://bucket/run: s3: is not supported"]),
    (["--workdir="], ["--workdir= is empty"]),
    (["--workdir=~nobody-of-that-name/x"], ["there is no user 'nobody-of-that-name'"]),
    (["--flagfile=absent"], ["--flagfile=absent cannot be read: No such file or directory"]),
  ],
)
def test_bad_command_lines_are_refused(tmp_path, overrides, words):
  with pytest.raises(UserError) as raised:
    train_command.parse(["train", "--config=configs/quickstart.py", f"--workdir={tmp_path}/w", *overrides])
  assert all(word in raised.value.line for word in words), raised.value.line


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (["--config.batch_size=1.5"], "--config.batch_size=1.5: must be a whole number"),
    (["--config.model.groups=5"], "config.model: groups=5 is not in the paper's Table 1; one of 1, 2, 3, 4, 8"),
  ],
)
def test_wrong_input_ends_a_command_with_one_line_and_status_2(tmp_path, overrides, message):
  done = command("train", "--config=configs/quickstart.py", f"--workdir={tmp_path}/w", *overrides)
  assert done.returncode == 2
  assert done.stderr.startswith("error: ") and done.stderr.endswith(f"{message}\n") and done.stderr.count("\n") == 1
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("module", ["train", "evaluate", "predict", "data.export"])
def test_help_needs_no_heavy_import(module):
  code = (
    "import runpy, sys; sys.argv = ['x', '--help']\n"
    f"try: runpy.run_module('shufflenet_jax.{module}', run_name='__main__', alter_sys=True)\n"
    "except SystemExit as stop: assert not stop.code, stop.code\n"
    "heavy = {'jax', 'tensorflow', 'flax', 'orbax', 'clu'} & set(sys.modules)\n"
    "assert not heavy, heavy"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stderr
  assert f"shufflenet_jax.{module}" in done.stdout


@pytest.mark.parametrize("module", ["models.shufflenet", "training.step", "tasks", "complexity"])
def test_models_and_steps_import_no_tensorflow(module):
  code = f"import sys, shufflenet_jax.{module}\nassert not {{'tensorflow', 'clu'}} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_evaluate_as_a_command(run):
  done = command("evaluate", f"--checkpoint={run.workdir}", "--config.eval_batch_size=71")
  figures = json.loads(done.stdout.splitlines()[-1])
  assert set(figures) == {"top1", "top5", "loss", "examples", "bad_pictures", "step"}
  assert (figures["examples"], figures["step"]) == (355, 12)
  assert (figures["top1"], figures["top5"]) == (run.figures["top1"], run.figures["top5"])


def test_evaluate_knows_the_fields_of_the_checkpoints_config(run):
  done = command("evaluate", f"--checkpoint={run.workdir}", "--config.data.nam=x")
  assert done.returncode == 2
  assert done.stderr == "error: config has no field data.nam; did you mean --config.data.name or --config.data.mean?\n"


def test_predict_as_a_command(run, config, tmp_path):
  pictures = export.export(config, 2, str(tmp_path / "pictures"))
  bad = tmp_path / "bad.png"
  bad.write_text("not a picture")
  done = command(
    "predict", f"--checkpoint={run.workdir}", "--json", pictures[0], bad, tmp_path / "absent.png", pictures[1]
  )
  answers = [json.loads(line) for line in done.stdout.splitlines()]
  assert done.returncode == 1
  assert [a["image"] for a in answers] == pictures
  for answer in answers:
    probabilities = [c["probability"] for c in answer["classes"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
  assert f"{bad}: not an image" in done.stderr
  assert "absent.png: No such file" in done.stderr
  assert "Traceback" not in done.stderr


def test_predictions_from_files_count_as_evaluation_does(run, tmp_path):
  name = Predictor(checkpoint.find(run.workdir))
  right = 0
  for path in export.export(run.config, 355, str(tmp_path / "p")):
    with open(path, "rb") as f:
      (label, _), *_ = name(f.read())
    right += label == os.path.basename(os.path.dirname(path))
  assert right == round(run.figures["top1"] * 355)


def test_imagenet_config_trains_on_a_prepared_imagenet2012(tmp_path):
  """On all devices; as TFDS itself prepares it."""

  def jpeg(i):
    return tf.io.encode_jpeg(tf.cast(tf.random.stateless_uniform((40 + i, 50, 3), (i, 0), 0, 256, tf.int32), tf.uint8))

  def add(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))

  manual = tmp_path / "manual"
  manual.mkdir()
  with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as train_tar:
    for wnid in ("n01440764", "n01443537"):
      inner = io.BytesIO()
      with tarfile.open(fileobj=inner, mode="w") as class_tar:
        for i in range(4):
          add(class_tar, f"{wnid}_{i}.JPEG", jpeg(i).numpy())
      add(train_tar, f"{wnid}.tar", inner.getvalue())
  with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as val_tar:
    for i in range(1, 6):
      add(val_tar, f"ILSVRC2012_val_{i:08d}.JPEG", jpeg(i).numpy())
  tfds.disable_progress_bar()
  builder = tfds.builder("imagenet2012", data_dir=tmp_path / "tfds")
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))

  config = imagenet.get_config("scale=0.25,groups=3")
  config.data.data_dir = str(tmp_path / "tfds")
  config.model.repeats = (1, 1, 1)
  config.num_train_steps, config.batch_size, config.eval_batch_size = 2, 4, 4
  state, figures = train(config, str(tmp_path / "w"))
  assert state.step == 2
  assert figures["examples"] == 5


@pytest.mark.parametrize(
  ("error", "status", "said"), [("KeyboardInterrupt", 130, "interrupted"), ("BrokenPipeError", 141, "")]
)
def test_an_interrupt_and_a_reader_who_left_end_without_a_traceback(error, status, said):
  code = f"from shufflenet_jax import cli\ndef main(_): print('x'); raise {error}\ncli.Command(main, id)()"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == status
  assert done.stderr.startswith(said) and "Traceback" not in done.stderr and done.stderr.count("\n") == bool(said)
