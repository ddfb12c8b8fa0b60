"""What KubeRay, 1.6 or newer, is given: https://docs.ray.io/en/latest/cluster/kubernetes/references/api.html"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from cluster.deploy.job import entrypoint
from cluster.deploy.nodes import accelerators, labels
from cluster.deploy.pods import pod_template, volume_claim_name
from cluster.deploy.sections import Kubernetes, Workers
from cluster.deploy.settings import Settings

_API = "ray.io/v1"
_RETRIES = 1  # of a job whose cluster was lost: it continues the same experiment on a new one
_KEEP_FINISHED_S = 600  # to look at what Ray logged


def ray_cluster(settings: Settings, kubernetes: Kubernetes) -> dict[str, Any]:
    """A cluster that stays until it is deleted."""
    metadata_ = {"name": settings.name}
    return {"apiVersion": _API, "kind": "RayCluster", "metadata": metadata_, "spec": _cluster(settings, kubernetes)}


def ray_job(settings: Settings, kubernetes: Kubernetes) -> dict[str, Any]:
    """A search on a cluster of its own, which goes when the search has ended."""
    return {
        "apiVersion": _API,
        "kind": "RayJob",
        "metadata": {"name": settings.name},
        "spec": {
            "entrypoint": entrypoint(settings),
            "submissionMode": "K8sJobMode",
            "backoffLimit": _RETRIES,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": _KEEP_FINISHED_S,
            "rayClusterSpec": _cluster(settings, kubernetes),
        },
    }


def experiments_volume(settings: Settings, kubernetes: Kubernetes) -> dict[str, Any]:
    """The claim of the folder that all nodes share; it stays when clusters go."""
    storage_class = {} if kubernetes.storage_class is None else {"storageClassName": kubernetes.storage_class}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume_claim_name(settings)},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            **storage_class,
            "resources": {"requests": {"storage": kubernetes.volume_size}},
        },
    }


def _cluster(settings: Settings, kubernetes: Kubernetes) -> dict[str, Any]:
    return {
        "rayVersion": metadata.version("ray"),
        "authOptions": {"mode": "token", "secretName": kubernetes.token_secret},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": settings.idle_timeout_s},
        "headGroupSpec": {
            # Its driver needs no CPU of Ray's, and trials shall not run where the cluster would be lost with them.
            "rayStartParams": {"num-cpus": "0"},
            "template": pod_template(settings, kubernetes, settings.head),
        },
        "workerGroupSpecs": [
            _worker_group(settings, kubernetes, kind, workers) for kind, workers in settings.workers.items()
        ],
    }


def _worker_group(settings: Settings, kubernetes: Kubernetes, kind: str, workers: Workers) -> dict[str, Any]:
    resources = {name: str(amount) for name, amount in accelerators(settings, workers).items()}
    return {
        "groupName": kind,
        "replicas": workers.min,
        "minReplicas": workers.min,
        "maxReplicas": workers.max,
        "rayStartParams": {},
        "labels": labels(settings, workers),
        **({"resources": resources} if resources else {}),
        "template": pod_template(settings, kubernetes, workers),
    }
