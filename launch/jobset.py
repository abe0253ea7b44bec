"""A JobSet for a TPU node pool of GKE, as a tree of dictionaries and lists."""

from __future__ import annotations

from launch import outcomes, staging
from shufflenet_jax.tpu.slices import Slice

CONTAINER, STAGING_CONTAINER = "train", "stage"
RUNTIME_PORT, COORDINATOR_PORT = 8471, 8080  # of libtpu and of JAX, between the hosts


def manifest(
  name: str, slice_: Slice, image: str, arguments: list[str], *, copy: list[str], slices: int = 1, spot: bool = False,
  retry: int = 0, namespace: str = "default", service_account: str | None = None,
) -> dict:  # fmt: skip
  """One Job per slice, one Pod per host. All restart together, up to `retry` times, except after the status `WRONG`.

  Args:
    name: of the JobSet.
    slice_: chips and hosts of one slice, which are the node pool's topology.
    image: built from launch/Dockerfile.
    arguments: of `python -m shufflenet_jax.train`.
    copy: arguments of `python -m shufflenet_jax.data.stage`, which every Pod runs first; or none.
    slices: number of slices, joined over the data centre's network.
    spot: run on spot nodes.
    retry: maximum number of restarts.
    namespace: of Kubernetes.
    service_account: of Kubernetes, which may read and write the bucket.
  """
  job = {
    "parallelism": slice_.hosts,
    "completions": slice_.hosts,
    "completionMode": "Indexed",
    "backoffLimit": 0,  # one restarted host cannot rejoin the others: the JobSet restarts all of them
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {"containerName": container, "operator": "In", "values": [outcomes.WRONG]},
        }
        for container in (CONTAINER, *([STAGING_CONTAINER] if copy else []))
      ]
    },
    "template": {"spec": _pod(slice_, image, arguments, copy, spot, service_account)},
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": name,
      "namespace": namespace,
      # One Job per node pool: a slice is a node pool, and two slices' Pods must not share one.
      "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
    },
    "spec": {
      "failurePolicy": {
        "maxRestarts": retry,
        "rules": [{"name": "wrong", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
      },
      "replicatedJobs": [{"name": "slice", "replicas": slices, "template": {"spec": job}}],
    },
  }


def _pod(
  slice_: Slice, image: str, arguments: list[str], copy: list[str], spot: bool, service_account: str | None
) -> dict:
  """One host's Pod."""
  selector = {
    "cloud.google.com/gke-tpu-accelerator": slice_.generation.gke_accelerator,
    "cloud.google.com/gke-tpu-topology": slice_.shape,
  }
  pod = {
    "restartPolicy": "Never",
    "nodeSelector": selector,
    "containers": [
      {
        **_container(CONTAINER, image, "shufflenet_jax.train", arguments),
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in (RUNTIME_PORT, COORDINATOR_PORT)],
        "resources": {"limits": {"google.com/tpu": slice_.chips_per_host}},
      }
    ],
  }
  if copy:
    _add_copy(pod, slice_, image, copy)
  if spot:
    selector["cloud.google.com/gke-spot"] = "true"
    pod["tolerations"] = [
      {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ]
  if service_account:
    pod["serviceAccountName"] = service_account
  return pod


def _container(name: str, image: str, module: str, arguments: list[str]) -> dict:
  """What all containers have."""
  return {
    "name": name,
    "image": image,
    "command": ["python", "-u", "-m", module],
    # Kubernetes expands $(NAME), and replaces $$ by $.
    "args": [argument.replace("$", "$$") for argument in arguments],
  }


def _add_copy(pod: dict, slice_: Slice, image: str, copy: list[str]) -> None:
  """Adds to a Pod a volume in memory, and a container that copies the dataset there before training begins.

  The volume holds half of the machine's memory, as /dev/shm does on a TPU VM; otherwise it could be filled until
  training has none left. It is deleted with the Pod.
  """
  mount = {"name": "dataset", "mountPath": staging.MOUNT}
  size = f"{slice_.memory_gb_per_host // 2}G"
  pod["volumes"] = [{"name": "dataset", "emptyDir": {"medium": "Memory", "sizeLimit": size}}]
  pod["initContainers"] = [
    {**_container(STAGING_CONTAINER, image, "shufflenet_jax.data.stage", copy), "volumeMounts": [mount]}
  ]
  pod["containers"][0]["volumeMounts"] = [mount]
