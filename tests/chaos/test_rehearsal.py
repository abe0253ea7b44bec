"""A spot run at a desk: the launcher drives a slice that is two processes here, which is taken away in the middle."""

import subprocess

import pytest

from launch import outcomes
from tests.chaos import runs
from tests.launch import stand_in
from tests.launch.launcher import tpu_vm

pytestmark = pytest.mark.chaos

# The worker's Python: training becomes two processes of this machine; the bucket and the worker's memory are folders.
PYTHON = """#!/bin/bash
if [ "$1" = - ]; then cat >/dev/null; echo "jax: $2 chips on $3 hosts"; exit; fi
module=$3
shift 3
arguments=()
for argument in "$@"; do
  argument=${argument/gs:\\/\\//$BUCKETS/}
  arguments+=("${argument/\\/dev\\/shm/$HOME/shm}")
done
case $module in
  shufflenet_jax.data.stage)
    if [ -e "$HOME/shm" ]; then echo present; else echo absent; fi >>"$BUCKETS/copies"
    exec "$PYTHON" -u -m "$module" "${arguments[@]}"
    ;;
  shufflenet_jax.train)
    rm -rf "$BUCKETS/my-bucket/data" # training reads the copy
    exec bash launch/local.sh 2 -- "${arguments[@]}"
    ;;
esac
exit 2
"""


def test_a_preempted_spot_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
  data_dir = tmp_path / "data"
  for key, value in runs.environment(data_dir).items():
    monkeypatch.setenv(key, value)
  # worker.sh knows the training by this name in its arguments, where it now stands in --workdir.
  buckets = tmp_path / "shufflenet_jax.train"
  buckets.mkdir()
  monkeypatch.setenv("BUCKETS", str(buckets))
  monkeypatch.delenv("PYTHONPATH")
  whole = runs.Process(tmp_path / "whole", data_dir, 2)
  assert whole.wait() == 0, whole.said()

  cloud = tmp_path / "cloud"
  stand_in.install(cloud, stand_in.Script(workers=1, on_workers=True, preempt_at=r"step 3/"))
  venv = cloud / "worker0/shufflenet_jax_venv"
  (venv / "bin").mkdir(parents=True)
  (venv / "bin/python").write_text(PYTHON)
  (venv / "bin/python").chmod(0o755)
  (cloud / "worker0/bin").mkdir()
  (cloud / "worker0/bin/gcloud").symlink_to("/bin/true")
  stamp = subprocess.run(["sha256sum", "requirements.txt"], cwd=runs.ROOT, capture_output=True, text=True).stdout
  (venv / "installed").write_text(stamp)
  training = runs.arguments("gs://my-bucket/run", "gs://my-bucket/data")
  done = tpu_vm(
    cloud, "up", "--spot", "--retry=2", "--allow_dirty", "--stage_data", kind="v5litepod-4", training=training
  )  # fmt: skip
  log = (done.stdout + done.stderr)[-3000:]
  assert done.returncode == outcomes.DONE, log
  assert done.cloud["created"] == 2, log
  assert not done.cloud["exists"]
  # The second slice's memory was empty, so the dataset was copied again.
  assert (buckets / "copies").read_text() == "absent\nabsent\n"
  runs.assert_same(buckets / "my-bucket/run", tmp_path / "whole")
  print("\npreempted behind step 3, recovered on a second slice, with the same final checkpoint")
