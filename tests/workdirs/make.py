"""Makes the work directory that tests/test_old_workdirs.py resumes: by the code of the first version, commit 07e64a2.

    .venv/bin/python -m tests.workdirs.make

Checks that commit out into a temporary worktree and trains a tiny network there for four of eight steps.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

COMMIT = "07e64a2"
FOLDER = pathlib.Path(__file__).parent / COMMIT
ROOT = pathlib.Path(__file__).parents[2]
FIELDS = {
  "model.scale": 0.1,
  "model.repeats": (1, 1, 1),
  "num_train_steps": 4,
  "batch_size": 16,
  "eval_batch_size": 355,
  "log_every_steps": 2,
  "eval_every_steps": 4,
  "checkpoint_every_steps": 4,
  "keep_checkpoints": 1,
  "optimizer.warmup_steps": 2,
}


def make() -> None:
  """Replaces `FOLDER`."""
  shutil.rmtree(FOLDER, ignore_errors=True)
  with tempfile.TemporaryDirectory() as temporary:
    worktree = f"{temporary}/worktree"
    subprocess.run(["git", "worktree", "add", "--detach", worktree, COMMIT], cwd=ROOT, check=True)
    try:
      command = [sys.executable, "-m", "shufflenet_jax.train", "--config=configs/quickstart.py", f"--workdir={FOLDER}"]
      command += [f"--config.{name}={value}" for name, value in FIELDS.items()]
      command += [f"--config.data.data_dir={temporary}/data"]
      subprocess.run(command, cwd=worktree, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=True)
      (FOLDER / "curves.png").unlink()  # the largest file, and drawn again by the next evaluation
    finally:
      subprocess.run(["git", "worktree", "remove", "--force", worktree], cwd=ROOT, check=True)


if __name__ == "__main__":
  make()
