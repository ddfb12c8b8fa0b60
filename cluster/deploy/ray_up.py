"""What `ray up` is given: a head and autoscaled workers on AWS.

Keys: https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html
Tokens: https://docs.ray.io/en/latest/ray-security/token-auth.html
"""

from __future__ import annotations

import shlex
from typing import Any

from cluster.deploy.nodes import HOME, accelerators, environment, labels
from cluster.deploy.sections import GpuWorkers, Node, RayUp, Workers
from cluster.deploy.settings import Settings

_SECRETS = f"{HOME}/secrets"
_START = "ulimit -n 65536; ray start --object-manager-port=8076"


def ray_up_config(settings: Settings, ray_up: RayUp) -> dict[str, Any]:
    """The cluster's configuration. Lists of commands that would be empty are there, or Ray puts its own."""
    return {
        "cluster_name": settings.name,
        "max_workers": sum(workers.max for workers in settings.workers.values()),
        "idle_timeout_minutes": settings.idle_timeout_s / 60,
        "provider": {"type": "aws", "region": ray_up.region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": ray_up.ssh_user},
        "docker": {"image": settings.image, "container_name": "ray", "run_options": _run_options(settings)},
        "head_node_type": "head",
        "available_node_types": {
            # Its driver needs no CPU of Ray's, and trials shall not run where the cluster would be lost with them.
            "head": {"resources": {"CPU": 0}, "max_workers": 0, "node_config": _machine(settings.head, ray_up)},
            **{kind: _worker_type(settings, workers, ray_up) for kind, workers in settings.workers.items()},
        },
        "file_mounts": {_SECRETS: ray_up.secrets_folder},
        "initialization_commands": _mount_commands(settings, ray_up),
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            "ray stop",
            f"{_START} --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": ["ray stop", f"{_START} --address=$RAY_HEAD_IP:6379"],
    }


def _run_options(settings: Settings) -> list[str]:
    variables = environment(settings) | {"RAY_AUTH_TOKEN_PATH": f"{_SECRETS}/auth_token"}
    if settings.storage.study_storage is not None:
        variables["PGPASSFILE"] = f"{_SECRETS}/pgpass"
    options = [f"--env {name}={shlex.quote(value)}" for name, value in variables.items()]
    folder = settings.storage.shared_folder
    return options if folder is None else [*options, f"--volume {folder}:{folder}"]


def _mount_commands(settings: Settings, ray_up: RayUp) -> list[str]:
    """On the machine itself, before its container starts."""
    folder = settings.storage.shared_folder
    if folder is None or ray_up.nfs is None:
        return []
    return [
        "test -x /sbin/mount.nfs4 || (sudo apt-get update && sudo apt-get install --yes nfs-common)",
        f"sudo mkdir -p {folder}",
        f"mountpoint -q {folder} || sudo mount -t nfs4 {ray_up.nfs} {folder}",
    ]


def _worker_type(settings: Settings, workers: Workers, ray_up: RayUp) -> dict[str, Any]:
    node_type: dict[str, Any] = {
        "resources": {"CPU": workers.cpus} | accelerators(settings, workers),
        "labels": labels(settings, workers),
        "min_workers": workers.min,
        "max_workers": workers.max,
        "node_config": _machine(workers, ray_up),
    }
    if ray_up.worker_instance_profile is not None:
        node_type["node_config"]["IamInstanceProfile"] = {"Name": ray_up.worker_instance_profile}
    if workers.spot:
        node_type["node_config"]["InstanceMarketOptions"] = {"MarketType": "spot"}
    if isinstance(workers, GpuWorkers):
        node_type["resources"]["GPU"] = workers.gpus
        node_type["docker"] = {"worker_run_options": ["--gpus all"]}
    return node_type


def _machine(node: Node, ray_up: RayUp) -> dict[str, Any]:
    """As EC2's RunInstances takes it."""
    disk = {"VolumeSize": ray_up.disk_gb, "VolumeType": "gp3", "DeleteOnTermination": True}
    return {
        "InstanceType": node.instance_type,
        "ImageId": ray_up.ami,
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
    }
