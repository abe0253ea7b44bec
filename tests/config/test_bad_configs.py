"""Every field that is out of range is one line, and nothing is written."""

import pytest

from shufflenet_jax.errors import UserError
from shufflenet_jax.training.loop import train


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model.groups", 5, "groups=5 is not in the paper's Table 1; one of 1, 2, 3, 4, 8"),
    ("model.scale", -1.0, "scale=-1.0 must be a positive number"),
    ("model.dtype", "float61", "'float61' is not one of float32, bfloat16"),
    ("model.network", "lenet", "'lenet' is not one of shufflenet_v1, mobilenet_v1"),
    ("model.network", "mobilenet_v1", "config.model.classifier_bias is not a field of network mobilenet_v1, which has"),
    ("model.shuffle", "maybe", "'maybe' is not one of paper, release, none"),
    ("model.stem", 7, "stem=7 must be a multiple of groups=3"),
    ("model.repeats", (1, 1), r"repeats=\(1, 1\) must be three positive numbers"),
    ("model.num_classes", 9, "has 10 classes, the network num_classes=9; set --config.model.num_classes=10"),
    ("batch_size", 18, "config.batch_size=18 does not divide over 4 devices; nearest: 16, 20"),
    ("batch_size", -16, "config.batch_size=-16 does not divide over 4 devices; nearest: 4"),
    ("eval_batch_size", 2, "config.eval_batch_size=2 does not divide over 4 devices; nearest: 4"),
    ("accumulate_steps", 0, "config.accumulate_steps=0 must be 1 or more"),
    ("accumulate_steps", 3, "batch_size=16 does not divide over 4 devices in 3 micro-batches; nearest: 12, 24"),
    ("num_train_steps", 0, "config.num_train_steps=0 must be 1 or more"),
    ("seed", 2**63, "config.seed=9223372036854775808 must be from -2\\^63 to 2\\^63 - 1"),
    ("optimizer.learning_rate", float("inf"), "config.optimizer.learning_rate=inf must be a finite number"),
    ("optimizer.weight_decay", float("nan"), "config.optimizer.weight_decay=nan must be a finite number"),
    ("optimizer.decay", "some", "'some' is not one of all, kernels"),
    ("optimizer.warmup_steps", 12, "warmup_steps=12 must be from 0 to below num_train_steps"),
    ("optimizer.label_smoothing", 2.0, "label_smoothing=2.0 must be from 0 to below 1"),
    ("log_every_steps", 0, "config.log_every_steps=0 must be 1 or more"),
    ("data.image_size", 64, "config.data.eval_resize=32 must be at least data.image_size"),
    ("data.std", (0.0, 1.0, 1.0), "three non-zero numbers"),
    ("data.min_crop_area", 2.0, "min_crop_area=2.0 must be above 0 and at most 1"),
    ("data.name", "imagenet2012", "prepare it with"),
    ("data.data_dir", __file__, "cannot be written: Not a directory"),
    ("init_from", "nowhere", "^--config.init_from=nowhere does not exist; give a WORKDIR"),
  ],
)
def test_bad_configs_write_nothing(config, tmp_path, field, value, message):
  section, _, name = field.rpartition(".")
  (config[section] if section else config)[name] = value
  with pytest.raises(UserError, match=message):
    train(config, str(tmp_path / "workdir"))
  assert not (tmp_path / "workdir").exists()
