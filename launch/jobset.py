"""A JobSet for a TPU node pool of GKE, as a tree of dictionaries and lists, and as YAML."""

from __future__ import annotations

import json

from launch import outcomes
from shufflenet_jax.tpu.slices import Slice

CONTAINER = "train"
RUNTIME_PORT, COORDINATOR_PORT = 8471, 8080  # of libtpu and of JAX, between the hosts


def manifest(
  name: str, slice_: Slice, image: str, arguments: list[str], *, slices: int = 1, spot: bool = False, retry: int = 0,
  namespace: str = "default", service_account: str | None = None,
) -> dict:  # fmt: skip
  """One Job a slice, one Pod a host; all restart together, up to `retry` times, except for a status of `WRONG`.

  Args:
    name: of the JobSet.
    slice_: what one slice consists of: the node pool's topology.
    image: built from launch/Dockerfile.
    arguments: of `python -m shufflenet_jax.train`.
    slices: how many, joined over the data centre's network.
    spot: on spot nodes.
    retry: restarts at most.
    namespace, service_account: of Kubernetes; the account is what may read and write the bucket.
  """
  selector = {
    "cloud.google.com/gke-tpu-accelerator": slice_.generation.gke_accelerator,
    "cloud.google.com/gke-tpu-topology": slice_.shape,
  }
  pod = {
    "restartPolicy": "Never",
    "nodeSelector": selector,
    "containers": [
      {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-u", "-m", "shufflenet_jax.train"],
        # Kubernetes replaces $(NAME), and $$ by $.
        "args": [argument.replace("$", "$$") for argument in arguments],
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in (RUNTIME_PORT, COORDINATOR_PORT)],
        "resources": {"limits": {"google.com/tpu": slice_.chips_per_host}},
      }
    ],
  }
  if spot:
    selector["cloud.google.com/gke-spot"] = "true"
    pod["tolerations"] = [
      {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ]
  if service_account:
    pod["serviceAccountName"] = service_account
  job = {
    "parallelism": slice_.hosts,
    "completions": slice_.hosts,
    "completionMode": "Indexed",
    "backoffLimit": 0,  # a host alone cannot go on: the JobSet restarts all
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [outcomes.WRONG]},
        }
      ]
    },
    "template": {"spec": pod},
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": name,
      "namespace": namespace,
      # One Job a node pool: a slice is a node pool, and its hosts must not be mixed with another's.
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


def to_yaml(value, indent: int = 0) -> str:
  """YAML of a tree; strings are JSON's, which every YAML reader takes as they are, whatever is in them."""
  pad = "  " * indent
  if isinstance(value, dict):
    rows = [(f"{pad}{key}:", item) for key, item in value.items()]
  else:
    rows = [(f"{pad}-", item) for item in value]
  text = ""
  for head, item in rows:
    if isinstance(item, (dict, list)) and item:
      text += f"{head}\n{to_yaml(item, indent + 1)}"
    else:
      text += f"{head} {json.dumps(item)}\n"
  return text
