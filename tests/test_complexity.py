"""The command that counts multiply-adds."""

import json

import pytest

from shufflenet_jax import complexity
from shufflenet_jax.errors import UserError


def run(*arguments):
  values, _ = complexity.command.parse(["complexity", *arguments])
  complexity.main(values)


def test_one_networks_row_agrees_with_its_text(capsys):
  line = "--config=configs/imagenet.py:scale=1.0,groups=3"
  run(line, "--json")
  (row,) = json.loads(capsys.readouterr().out)
  assert row["network"] == "shufflenet_v1 scale=1.0 groups=3"
  run(line)
  assert f"{row['mflops_with_fc'] * 1e6:,.0f}" in capsys.readouterr().out


@pytest.mark.parametrize("size", [0, 31])
def test_pictures_below_the_smallest_size_are_refused(size):
  with pytest.raises(UserError, match=f"^config.data.image_size={size} must be 32 or more$"):
    run("--config=configs/imagenet.py:network=squeezenet", f"--config.data.image_size={size}")
