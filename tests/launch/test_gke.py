"""launch/gke: the JobSet against its published schema, and the commands that kubectl receives."""

import json
import os
import subprocess
import sys

import pytest

from launch import gke, outcomes, staging
from tests.launch import stand_in
from tests.launch.launcher import AWKWARD, ROOT, TRAINING
from tests.launch.stand_in import Script

IMAGE = "us-docker.pkg.dev/my-project/my-repository/shufflenet_jax:1"
DATA = "--config.data.data_dir=gs://my-bucket/data"
FLAGS = ["--name=sn-1", "--type=v5litepod-16", f"--image={IMAGE}"]


def launch(folder, *flags, training=None, script=None, **options):
  if script:
    stand_in.install(folder, script)
  line = [sys.executable, "-S", str(ROOT / "launch/gke"), *flags, *(["--", *training] if training else [])]
  done = subprocess.run(line, env=stand_in.environment(folder), capture_output=True, text=True, timeout=60, **options)
  assert "Traceback" not in done.stderr, done.stderr
  done.calls = stand_in.calls(folder)
  return done


def manifest(tmp_path, *flags, training=TRAINING):
  done = launch(tmp_path, "manifest", *flags, training=training, script=Script())
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def pod(jobset):
  return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize("kind", ["v4-8", "v5litepod-1", "v5litepod-8", "v5litepod-256", "v5p-128", "v6e-16"])
def test_manifest_is_of_the_published_schema(tmp_path, kind, spot):
  """Kubeflow publishes the JobSet API's schema as models, which drop unknown fields."""
  models = pytest.importorskip("kubeflow_trainer_api.models")
  flags = [*FLAGS[:1], f"--type={kind}", FLAGS[2], "--slices=2", "--retry=9", "--service_account=trainer"]
  # Those on spot nodes also copy the dataset.
  more, training = (["--spot", "--stage_data"], [*TRAINING, DATA]) if spot else ([], TRAINING)
  made = manifest(tmp_path, *flags, *more, training=training)
  assert models.JobsetV1alpha2JobSet.from_dict(made).to_dict() == made


def test_the_schema_test_notices_a_wrong_field(tmp_path):
  models = pytest.importorskip("kubeflow_trainer_api.models")
  made = manifest(tmp_path, *FLAGS)
  pod(made)["restartpolicy"] = "Never"
  assert models.JobsetV1alpha2JobSet.from_dict(made).to_dict() != made


# (accelerator type, GKE's label, topology, hosts, chips a host): cloud.google.com/kubernetes-engine/docs/concepts/tpus
@pytest.mark.parametrize(
  ("kind", "accelerator", "topology", "hosts", "chips"),
  [
    ("v4-16", "tpu-v4-podslice", "2x2x2", 2, 4),
    ("v5litepod-1", "tpu-v5-lite-podslice", "1x1", 1, 1),
    ("v5litepod-8", "tpu-v5-lite-podslice", "2x4", 1, 8),
    ("v5litepod-16", "tpu-v5-lite-podslice", "4x4", 4, 4),
    ("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4),
    ("v6e-256", "tpu-v6e-slice", "16x16", 64, 4),
  ],
)
def test_nodes_and_chips(tmp_path, kind, accelerator, topology, hosts, chips):
  made = manifest(tmp_path, FLAGS[0], f"--type={kind}", FLAGS[2])
  (group,) = made["spec"]["replicatedJobs"]
  job = group["template"]["spec"]
  assert (group["replicas"], job["parallelism"], job["completions"], job["backoffLimit"]) == (1, hosts, hosts, 0)
  assert pod(made)["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": accelerator,
    "cloud.google.com/gke-tpu-topology": topology,
  }
  (container,) = pod(made)["containers"]
  assert container["resources"]["limits"] == {"google.com/tpu": chips}
  assert ("--distributed" in container["args"]) == (hosts > 1)


def test_several_slices_restarts_and_spot(tmp_path):
  made = manifest(tmp_path, *FLAGS, "--slices=3", "--retry=7", "--spot", "--namespace=research")
  (group,) = made["spec"]["replicatedJobs"]
  assert group["replicas"] == 3
  assert made["metadata"]["namespace"] == "research"
  assert made["metadata"]["annotations"] == {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
  }
  policy = made["spec"]["failurePolicy"]
  assert policy["maxRestarts"] == 7
  # Exit status 2 fails the Job, for the reason that the JobSet's rule names.
  (rule,) = group["template"]["spec"]["podFailurePolicy"]["rules"]
  assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [outcomes.WRONG])
  assert rule["onExitCodes"]["containerName"] == pod(made)["containers"][0]["name"]
  assert policy["rules"][0]["action"] == "FailJobSet"
  assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert pod(made)["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
  assert pod(made)["tolerations"][0]["key"] == "cloud.google.com/gke-spot"


def test_arguments_arrive_unchanged(tmp_path):
  args = pod(manifest(tmp_path, *FLAGS, training=TRAINING + AWKWARD))["containers"][0]["args"]
  # Kubernetes replaces $$ by $.
  assert [a.replace("$$", "$") for a in args] == ["--distributed", *TRAINING, *AWKWARD]
  assert "$(" not in "".join(args).replace("$$", "")


def test_the_dataset_is_copied_into_memory_before_training(tmp_path):
  made = manifest(tmp_path, *FLAGS, "--stage_data", training=[*TRAINING, DATA])
  (train,), (stage,) = pod(made)["containers"], pod(made)["initContainers"]
  assert stage["command"] == ["python", "-u", "-m", "shufflenet_jax.data.stage"]
  assert stage["args"] == [TRAINING[0], DATA, f"--to={staging.FOLDER}"]
  assert train["args"] == ["--distributed", *TRAINING, DATA, f"--config.data.data_dir={staging.FOLDER}"]
  assert stage["volumeMounts"] == train["volumeMounts"] == [{"name": "dataset", "mountPath": "/dev/shm"}]
  # Half of a ct5lp-hightpu-4t's 192 GB, which a Pod must not fill.
  assert pod(made)["volumes"] == [{"name": "dataset", "emptyDir": {"medium": "Memory", "sizeLimit": "96G"}}]
  (group,) = made["spec"]["replicatedJobs"]
  rules = group["template"]["spec"]["podFailurePolicy"]["rules"]
  assert [rule["onExitCodes"]["containerName"] for rule in rules] == [train["name"], stage["name"]]
  assert all(rule["onExitCodes"]["values"] == [outcomes.WRONG] for rule in rules)
  assert "initContainers" not in pod(manifest(tmp_path / "without", *FLAGS))


def test_the_arguments_of_the_copy_are_those_of_the_config():
  given = [
    "--workdir",
    "gs://b/w",
    "--config",
    "c.py",
    "-config.a=1",
    "--config.b",
    "-2",
    "--noconfig.c",
    "--d=--config",
  ]
  copy, training = staging.split([*given, "--config.data.data_dir", "gs://b/data", "--config.e", "--f"])
  assert copy == [
    "--config", "c.py", "-config.a=1", "--config.b", "-2", "--noconfig.c", "--config.data.data_dir", "gs://b/data",
    "--config.e", f"--to={staging.FOLDER}",
  ]  # fmt: skip
  assert training[:-1] == [*given, "--config.data.data_dir", "gs://b/data", "--config.e", "--f"]


def test_apply_status_logs_delete(tmp_path):
  done = launch(tmp_path, "apply", *FLAGS, training=TRAINING, script=Script())
  assert done.returncode == 0, done.stderr
  *call, stdin = done.calls[-1]
  assert call == ["kubectl", "apply", "--namespace=default", "--filename=-"]
  assert json.loads(stdin) == json.loads(launch(tmp_path, "manifest", *FLAGS, training=TRAINING).stdout)
  launch(tmp_path, "logs", "--name=sn-1", "--worker=2", "--follow")
  chosen = "jobset.sigs.k8s.io/jobset-name=sn-1,batch.kubernetes.io/job-completion-index=2"
  logs = ["kubectl", "logs", "--namespace=default", f"--selector={chosen}", "--prefix", "--tail=50", "--follow"]
  assert stand_in.calls(tmp_path)[-1] == logs
  before = len(stand_in.calls(tmp_path))
  assert launch(tmp_path, "delete", "--name=sn-1", input="no\n").returncode == outcomes.WRONG
  assert len(stand_in.calls(tmp_path)) == before
  done = launch(tmp_path, "delete", "--name=sn-1", "--yes")
  assert done.calls[-1] == ["kubectl", "delete", "jobset", "sn-1", "--namespace=default"]


@pytest.mark.parametrize(
  ("condition", "reason", "outcome"),
  [
    (None, "", outcomes.RUNNING),
    ("Completed", "AllJobsCompleted", outcomes.DONE),
    ("Failed", "ReachedMaxRestarts", outcomes.FAILED),
    ("Failed", "FailJobSetFailurePolicyAction", outcomes.WRONG),
  ],
)
def test_status_distinguishes_the_outcomes(tmp_path, condition, reason, outcome):
  conditions = [{"type": condition, "status": "True", "reason": reason}] if condition else []
  script = Script(prints=(("get .*--output=json", json.dumps({"status": {"restarts": 4, "conditions": conditions}})),))
  done = launch(tmp_path, "status", "--name=sn-1", script=script)
  assert done.returncode == outcome
  assert f"{outcomes.WORDS[outcome]}, 4 restarts" in done.stdout


def test_a_refusal_by_kubectl_is_one_line(tmp_path):
  script = Script(fail=(("apply", 1, "no matches for kind JobSet", 1),))
  done = launch(tmp_path, "apply", *FLAGS, training=TRAINING, script=script)
  assert done.returncode == outcomes.FAILED
  assert "no matches for kind JobSet" in done.stderr.splitlines()[-1]


def test_dry_run_calls_nothing(tmp_path):
  done = launch(tmp_path, "apply", *FLAGS, "--dry_run", training=TRAINING, script=Script())
  assert done.stdout.startswith('kubectl apply --namespace=default --filename=-\n# {\n#   "apiVersion":')
  for command in ("status", "logs", "delete"):
    done = launch(tmp_path, command, "--name=sn-1", "--dry_run")
    assert done.stdout.startswith("kubectl ")
  assert done.calls == []


@pytest.mark.parametrize(
  ("flags", "training", "words"),
  [
    ([*FLAGS, "--name=a b"], TRAINING, "--name='a b'"),
    ([*FLAGS, "--name=" + "a" * 41], TRAINING, "40 at most"),
    ([*FLAGS, "--image=a b"], TRAINING, "--image='a b'"),
    ([*FLAGS, "--namespace=A"], TRAINING, "--namespace='A'"),
    ([*FLAGS, "--slices=0"], TRAINING, "--slices=0"),
    ([*FLAGS, "--type=v5litepod-5"], TRAINING, "--type=v5litepod-5"),
    (FLAGS, ["--config=c.py", "--workdir=runs/x"], "would be deleted with the Pod"),
    (FLAGS, ["--config=c.py"], "--workdir is missing"),
    (FLAGS[:2], TRAINING, "--image"),
    ([*FLAGS, "--stage_data"], TRAINING, "--stage_data copies a prepared dataset: give --config.data.data_dir=gs://"),
  ],
)
def test_wrong_flags_are_one_line(capsys, flags, training, words):
  assert gke.main(["manifest", *flags, "--", *training]) == outcomes.WRONG
  captured = capsys.readouterr()
  assert words in captured.err
  assert len(captured.err.splitlines()) == 1
  assert captured.out == ""


@pytest.mark.parametrize("flag", ["--worker=-3", "--lines=-2"])
def test_negative_numbers_are_refused(capsys, flag):
  assert gke.main(["logs", "--name=n", "--dry_run", flag]) == outcomes.WRONG
  assert f"{flag} must be 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["tpu_vm", "gke"])
def test_launchers_run_as_programs(launcher):
  program = str(ROOT / "launch" / launcher)
  for flags in (
    ["--help"],
    ["status", "--help"],
    ["status", "--name=n", "--zone=us-central1-a", "--type=v4-8", "--dry_run"],
  ):
    flags = flags[:2] + flags[-1:] if launcher == "gke" and len(flags) > 2 else flags
    done = subprocess.run(
      [program, *flags], capture_output=True, text=True, env=os.environ | {"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
