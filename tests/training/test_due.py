"""What is due at a step."""

import types

import pytest

from shufflenet_jax.training.due import Due, due_at, evaluation_owed

CONFIG = types.SimpleNamespace(log_every_steps=2, eval_every_steps=6, checkpoint_every_steps=4, num_train_steps=13)


@pytest.mark.parametrize(
  ("step", "stopping", "expected"),
  [
    (1, False, ""),
    (2, False, "log"),
    (4, False, "log save"),
    (6, False, "log evaluate save"),  # an evaluation's figures are saved with the state
    (13, False, "log evaluate save"),  # at the end everything is
    (1, True, "log save stop"),
    (2, True, "log save stop"),
    (6, True, "log save stop"),  # the next start evaluates
    (13, True, "log save stop"),
  ],
)
def test_what_is_due(step, stopping, expected):
  wanted = Due(**{name: name in expected.split() for name in Due._fields})
  assert due_at(step, CONFIG, last_step=13, stopping=stopping) == wanted


@pytest.mark.parametrize(
  ("step", "evaluated", "owed"),
  [(0, set(), False), (5, set(), False), (6, set(), True), (6, {6}, False), (13, {6}, True), (13, {6, 13}, False)],
)
def test_an_evaluation_that_a_stop_prevented_is_owed(step, evaluated, owed):
  assert evaluation_owed(step, CONFIG, evaluated) == owed
