"""The pods of a fleet on Kubernetes: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.deploy.nodes import USER_ID, environment
from cluster.deploy.sections import GpuWorkers, Kubernetes, Node, Workers
from cluster.deploy.settings import Settings

_GPU = "nvidia.com/gpu"
_VOLUME = "shared"

# Answers for the raylet and, on the head, for Ray's control store; needs no token. KubeRay's own probes ask the same.
_HEALTH = {"httpGet": {"path": "/api/healthz", "port": 52365}, "timeoutSeconds": 5}


def volume_claim_name(settings: Settings) -> str:
    return f"{settings.name}-experiments"


def pod_template(settings: Settings, kubernetes: Kubernetes, node: Node) -> dict[str, Any]:
    """A pod for the head or a worker, by which of them ``node`` is."""
    shared_folder = settings.storage.shared_folder
    container = {
        "name": "ray-worker" if isinstance(node, Workers) else "ray-head",
        "image": settings.image,
        "env": _variables(settings, kubernetes),
        "resources": _resources(node),
        "startupProbe": _HEALTH | {"periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": _HEALTH | {"periodSeconds": 5, "failureThreshold": 12},
        "livenessProbe": _HEALTH | {"periodSeconds": 10, "failureThreshold": 12},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if kubernetes.object_secret is not None:
        container["envFrom"] = [{"secretRef": {"name": kubernetes.object_secret}}]
    if shared_folder is not None:
        container["volumeMounts"] = [{"name": _VOLUME, "mountPath": shared_folder}]
        spec["volumes"] = [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": volume_claim_name(settings)}}]
    if kubernetes.service_account is not None:
        spec["serviceAccountName"] = kubernetes.service_account
    return {"spec": spec | _placement(kubernetes, node)}


def _variables(settings: Settings, kubernetes: Kubernetes) -> list[dict[str, Any]]:
    secrets = {"RAY_AUTH_TOKEN": (kubernetes.token_secret, "auth_token")}
    if settings.storage.study_storage is not None and kubernetes.database_secret is not None:
        secrets["PGPASSWORD"] = (kubernetes.database_secret, "password")
    return [
        *({"name": name, "value": value} for name, value in environment(settings).items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for name, (secret, key) in secrets.items()
        ),
    ]


def _resources(node: Node) -> dict[str, dict[str, str]]:
    """Requested and limited alike: Ray counts on what it was promised."""
    gpus = {_GPU: str(node.gpus)} if isinstance(node, GpuWorkers) else {}
    amounts = {"cpu": str(node.cpus), "memory": node.memory} | gpus
    return {"requests": amounts, "limits": amounts}


def _placement(kubernetes: Kubernetes, node: Node) -> dict[str, Any]:
    """Spot nodes and those with GPUs are commonly tainted, so that nothing comes there by chance."""
    selector: Mapping[str, str] = {}
    tolerations: list[dict[str, str]] = []
    if isinstance(node, Workers) and node.spot:
        selector = kubernetes.spot_label or {}
        tolerations += [{"key": key, "operator": "Equal", "value": value} for key, value in selector.items()]
    if isinstance(node, GpuWorkers):
        selector = {**selector, **(kubernetes.gpu_label or {})}
        tolerations.append({"key": _GPU, "operator": "Exists"})
    placement = {"nodeSelector": dict(selector), "tolerations": tolerations}
    return {key: value for key, value in placement.items() if value}
