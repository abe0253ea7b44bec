"""Wrong input, failures and stops are siblings: what handles one never handles another."""

import pytest

from shufflenet_jax import errors, storage


@pytest.mark.parametrize("kind", [errors.RunFailed, errors.Preempted, errors.Interrupted, storage.Unavailable])
def test_what_handles_wrong_input_lets_the_other_ends_pass(kind):
  with pytest.raises(kind):  # noqa: PT012
    try:
      raise kind("stopped")
    except errors.UserError:
      pytest.fail("taken for wrong input")


@pytest.mark.parametrize(
  ("kind", "status"),
  [
    (errors.UserError, 2),
    (errors.RunFailed, 1),
    (errors.Preempted, 75),
    (errors.Interrupted, 130),
    (storage.Refused, 2),
    (storage.Locked, 2),
    (storage.Unavailable, 1),
  ],
)
def test_statuses(kind, status):
  with pytest.raises(errors.CommandEnded) as raised:
    raise kind("a file\nof two lines")
  assert (raised.value.status, raised.value.line) == (status, "a file of two lines")


def test_every_storage_error_can_be_caught_as_one():
  assert {storage.Refused, storage.Locked, storage.Unavailable} <= {
    kind for kind in vars(storage).values() if isinstance(kind, type) and issubclass(kind, storage.StorageError)
  }
