"""A detector is trained, resumed, evaluated and applied as a classifier is: the whole path on a small dataset."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from shufflenet_jax import tasks
from shufflenet_jax.checkpoints import checkpoint
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu.compile import lower_step
from shufflenet_jax.training import evaluation, metrics
from shufflenet_jax.training.loop import train
from tests.commands import command

DEVICES = jax.devices()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return tmp_path_factory.mktemp("detector") / "w"


@pytest.fixture
def workdir(trained, detector):
  """Of a detector that was trained for 6 steps; its state and figures are those of `train`."""
  if not trained.exists():
    train(detector, str(trained), DEVICES[:1])
  return str(trained)


def test_a_stopped_run_ends_in_the_same_bits(detector, workdir, tmp_path, capsys):
  train(detector, str(tmp_path), DEVICES[:1], stop_after_step=4)
  state, figures = train(detector, str(tmp_path), DEVICES[:1])
  whole = checkpoint.find(workdir)
  expected = whole.restore_variables()
  jax.tree.map(np.testing.assert_array_equal, state.params, expected["params"])
  assert figures.keys() == {"ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "examples", "bad_pictures"}
  lines = metrics.read(tmp_path)
  assert [(line["step"], line["eval_ap"]) for line in lines if "eval_ap" in line][-1] == (6, figures["ap"])
  trained = [line for line in lines if "train_loss" in line]
  assert [line["step"] for line in trained] == [2, 4, 6]
  assert {"train_rpn_class", "train_rpn_box", "train_head_class", "train_head_box"} <= trained[-1].keys()
  out = capsys.readouterr().out
  assert "evaluation at step 6: AP " in out and " on 5 examples" in out
  assert "head_box" in out
  assert (tmp_path / "curves.png").exists()


def test_batch_norm_keeps_its_statistics_and_learns_its_scale(detector, workdir):
  state = checkpoint.find(workdir).restore_variables()
  model = tasks.network(detector)
  fresh = model.init(jax.random.key(detector.seed), np.zeros((1, 64, 64, 3), np.float32))
  jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], dict(fresh["batch_stats"]))
  before, after = (tree["params"]["stage4_unit1"]["expand_norm"]["scale"] for tree in (fresh, state))
  assert not np.array_equal(before, after)


def test_from_scratch_statistics_are_trained_on_request(detector, tmp_path, capsys):
  train(detector, str(tmp_path / "kept"), DEVICES[:1], stop_after_step=1)
  assert "batch norm keeps its initial statistics" in capsys.readouterr().out
  detector.detection.train_statistics = True
  state, _ = train(detector, str(tmp_path / "trained"), DEVICES[:1], stop_after_step=1)
  assert "keeps its initial statistics" not in capsys.readouterr().out
  for norm in ("stem_norm", "stage4_unit1"):
    assert np.any(jax.tree.leaves(state.batch_stats[norm])[0] != 0)


@pytest.mark.parametrize("count", [2, 4])
def test_the_number_of_devices_changes_nothing(detector, workdir, tmp_path, count):
  """Which anchors and regions are sampled depends on seed, step and example alone."""
  source = checkpoint.find(workdir)
  alone = evaluation.evaluate_checkpoint(source, source.config, devices=DEVICES[:1])
  assert evaluation.evaluate_checkpoint(source, source.config, devices=DEVICES[:count]) == alone
  first = {}
  for devices in (DEVICES[:1], DEVICES[:count]):
    workdir = tmp_path / str(len(devices))
    detector.log_every_steps = 1
    train(detector, str(workdir), devices, stop_after_step=2)
    first[len(devices)] = [line["train_loss"] for line in metrics.read(workdir) if "train_loss" in line]
  assert len(first[1]) == 2 and first[count] == pytest.approx(first[1], rel=1e-5)


def test_boxes_are_in_pixels_of_the_original_picture(detector, monkeypatch):
  """A picture of 300x200 pixels that was shrunk to 60x40, on a canvas of 64x64."""
  task = tasks.build(tasks.network(detector), detector)
  on_canvas = np.array([[[10, 30, 20, 60]]], np.float32)
  found = (on_canvas, np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32))
  monkeypatch.setattr("shufflenet_jax.tasks.detection.detections.detect", lambda *arguments: found)
  batch = {"image": np.zeros((1, 64, 64, 3), np.uint8), "boxes": on_canvas}
  batch |= {"size": np.array([[40, 60]], np.float32), "original_size": np.array([[200, 300]], np.float32)}
  batch |= {name: np.zeros((1, 1)) for name in ("label", "crowd", "area")}
  rows = task.rows({}, {}, batch)
  np.testing.assert_array_equal(rows["detected_boxes"], [[[50, 150, 100, 300]]])
  np.testing.assert_array_equal(rows["boxes"], [[[50, 150, 100, 300]]])


def test_objects_are_predicted_as_table_json_and_drawings(workdir, scenes, tmp_path):
  pictures = str(scenes.parent / "validation")
  done = command("predict", f"--checkpoint={workdir}", pictures)
  assert done.returncode == 0, done.stderr
  table = done.stdout.splitlines()
  assert table[0].split() == ["image", "score", "xmin", "ymin", "xmax", "ymax", "class"]
  done = command("predict", f"--checkpoint={workdir}", "--json", f"--draw={tmp_path}/drawn", pictures)
  answers = [json.loads(line) for line in done.stdout.splitlines()]
  assert [answer["image"].rsplit("/")[-1] for answer in answers] == [f"{i}.png" for i in range(5)]
  for answer in answers:
    with Image.open(answer["image"]) as image, Image.open(f"{tmp_path}/drawn/{answer['image'][-5]}_boxes.png") as drawn:
      assert drawn.size == image.size
      for found in answer["objects"]:
        x, y, width, height = found["box"]
        assert found["class"] in ("red", "green", "blue") and 0.05 < found["score"] <= 1
        assert x >= 0 and y >= 0 and x + width <= image.width + 0.1 and y + height <= image.height + 0.1
    scores = [found["score"] for found in answer["objects"]]
    assert scores == sorted(scores, reverse=True)


def test_what_does_not_fit_a_detector_is_refused(workdir, run, scenes, data_dir, tmp_path):
  def refused(name, *arguments):
    done = command(name, *arguments)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line

  assert "--data=" in refused("evaluate", f"--checkpoint={workdir}", f"--data={tmp_path}")
  line = refused(
    "evaluate", f"--checkpoint={workdir}", f"--config.data.data_dir={data_dir}", "--config.data.name=digits"
  )
  assert "dataset 'digits' has no boxes" in line
  line = refused(
    "evaluate", f"--checkpoint={run.workdir}", f"--config.data.data_dir={scenes}", "--config.data.name=scenes"
  )
  assert "is not image classification" in line and "configs/boxes.py" in line
  line = refused("evaluate", f"--checkpoint={workdir}", "--config.detection.anchor_sizes=16")
  assert "other values of detection.anchor_sizes" in line and "what it was trained for cannot be overridden" in line
  assert "another task (classification -> detection)" in refused(
    "evaluate", f"--checkpoint={run.workdir}", "--config.task=detection"
  )
  assert "only classification can be exported" in refused(
    "export", f"--checkpoint={workdir}", f"--to={tmp_path}/x.onnx"
  )
  assert "--draw=" in refused("predict", f"--checkpoint={run.workdir}", f"--draw={tmp_path}/d", str(scenes.parent))


def test_a_classifier_becomes_the_backbone(detector, run, tmp_path, capsys):
  detector.init_from, detector.optimizer.learning_rate = run.workdir, 1e-9
  state, _ = train(detector, str(tmp_path), DEVICES[:1], stop_after_step=1)
  before = checkpoint.find(run.workdir).restore_variables()
  assert "classifier" not in state.params
  np.testing.assert_allclose(state.params["stem"]["kernel"], before["params"]["stem"]["kernel"], atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, dict(state.batch_stats), before["batch_stats"])
  assert "is of another task (classification): rpn and box_head start from new weights" in capsys.readouterr().out


def test_a_detector_of_other_classes_keeps_those_that_it_knows(detector, workdir):
  """Red and blue move to other labels, green is dropped, and yellow is new."""
  source = checkpoint.find(workdir)
  before = source.restore_variables()["params"]["box_head"]
  model = tasks.network(detector)
  fresh = model.init(jax.random.key(9), np.zeros((1, 64, 64, 3), np.float32))["params"]
  task = tasks.build(model, detector)
  now = task.adapt_params(source.restore_variables()["params"], fresh, source.class_names, ("blue", "yellow", "red"))
  for name, per_class in (("classes", 1), ("deltas", 4)):
    old, new, adapted = (np.asarray(head[name]["kernel"]) for head in (before, fresh["box_head"], now["box_head"]))
    old, new, adapted = (x[:, : 3 * per_class].reshape(-1, 3, per_class) for x in (old, new, adapted))
    np.testing.assert_array_equal(adapted, np.stack([old[:, 2], new[:, 1], old[:, 0]], 1))
  np.testing.assert_array_equal(now["box_head"]["classes"]["kernel"][:, 3], before["classes"]["kernel"][:, 3])


def test_its_step_is_lowered_for_other_devices(detector):
  (_, batch), _ = lower_step(tasks.network(detector), detector, DEVICES[:1], "train").stage.args_info
  assert batch.keys() == {"image", "boxes", "label", "crowd", "area", "size", "original_size"}


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("data.long_side", 65, "config.data.long_side=65 must be at most data.image_size"),
    ("data.short_side", 65, "config.data.short_side=65 must be at most data.long_side"),
    ("detection.crop", 10, "config.detection.crop=10 must be 14 or 7"),
    ("detection.anchor_sizes", (), r"config.detection.anchor_sizes=\(\) must be one or more lengths in pixels"),
    ("detection.anchor_sizes", (16.0, float("inf")), r"=\(16.0, inf\) must be one or more lengths in pixels"),
    ("detection.proposals", 1001, "config.detection.proposals=1001 must be from 1 to 1000"),
    ("model.network", "vgg16", "config.model.network=vgg16 has no maps for a detector; one of shufflenet_v1, mob"),
    ("data.in_memory", True, "config.data.in_memory=True is for classification"),
    ("model.num_classes", 2, "dataset 'scenes' has 3 classes, the network num_classes=2"),
  ],
)
def test_values_that_a_detector_does_not_accept(detector, tmp_path, field, value, message):
  section, name = field.split(".")
  detector[section][name] = value
  with pytest.raises(UserError, match=message):
    train(detector, str(tmp_path), DEVICES[:1])
  assert not list(tmp_path.iterdir())
