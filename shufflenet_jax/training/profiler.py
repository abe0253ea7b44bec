"""Traces of some training steps for the profile pages of TensorBoard and XProf.

pip install xprof; xprof --logdir=WORKDIR/profile
"""

import contextlib
import os
import sys
import tempfile

import jax

from shufflenet_jax import storage
from shufflenet_jax.errors import RunFailed, UserError

FOLDER = "profile"  # in the work directory


def parse(text: str | None, num_train_steps: int) -> range:
  """The steps that "START,COUNT" names; an empty range for None.

  Raises:
    UserError: the text is not two whole numbers, or the steps are not all from 1 to `num_train_steps`.
  """
  if text is None:
    return range(0)
  numbers = [part.strip() for part in text.split(",")]
  if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
    raise UserError(f"--profile_steps={text} must be START,COUNT, two whole numbers from 1, for instance 20,5")
  start, count = map(int, numbers)
  if start + count - 1 > num_train_steps:
    raise UserError(f"--profile_steps={text} ends at step {start + count - 1}; the run has {num_train_steps} steps")
  return range(start, start + count)


class Profiler(contextlib.AbstractContextManager):
  """Traces the steps given, on the first process, into `WORKDIR/profile`. The end of the context ends a trace early.

  A trace that cannot be written does not end the training.
  """

  def __init__(self, run, steps: range):
    """
    Args:
      run: a `preflight.Run`. Steps outside of it are not traced.
      steps: as `parse` returns them.
    """
    self._workdir, self._say = run.workdir, run.say
    self._steps = steps if run.process.index == 0 else range(0)
    self._folder: tempfile.TemporaryDirectory | None = None
    if steps and steps[0] <= run.start_step:
      self._say(f"note: steps up to {run.start_step} are done already, and are not profiled")

  def before(self, step: int) -> None:
    """Begins the trace if it is due; to be called before the step is dispatched."""
    if step in self._steps and self._folder is None:
      self._folder = tempfile.TemporaryDirectory(prefix="profile-")
      jax.profiler.start_trace(self._folder.name)

  def after(self, step: int, results) -> None:
    """If `step` is the last one to trace, waits for its results and writes the trace; to be called after each step."""
    if self._folder is not None and step == self._steps[-1]:
      jax.block_until_ready(results)
      self._end()

  def __exit__(self, *exception):
    if self._folder is not None:
      self._end()

  def _end(self) -> None:
    jax.profiler.stop_trace()
    target = storage.join(self._workdir, FOLDER)
    with self._folder as folder:
      try:
        for name, _ in storage.walk(folder):
          with open(os.path.join(folder, name), "rb") as file:
            storage.write_bytes(storage.join(target, name), file.read())
        self._say(f"  profile: {target}")
      except (UserError, RunFailed) as error:
        print(f"note: the profile cannot be written: {error}", file=sys.stderr)
    self._folder, self._steps = None, range(0)
