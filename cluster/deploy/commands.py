"""What to type once a fleet is rendered."""

from __future__ import annotations

import shlex
from pathlib import Path

from cluster.deploy.job import entrypoint
from cluster.deploy.sections import Kubernetes, RayUp
from cluster.deploy.settings import Settings


def next_commands(settings: Settings, folder: Path) -> dict[str, list[str]]:
    """Purpose to command lines, in the order in which they are needed."""
    commands = {"build the image, in the repository's root": _build(settings, folder)}
    if settings.ray_up is not None:
        commands["with ray up"] = _ray_up(settings, settings.ray_up, folder)
    if settings.kubernetes is not None:
        commands["with KubeRay"] = _kuberay(settings, settings.kubernetes, folder)
    return commands


def _build(settings: Settings, folder: Path) -> list[str]:
    index = " --build-arg TORCH_INDEX_URL=…" if settings.torch == "cpu" else ""
    dockerfile = shlex.quote(str(folder / "Dockerfile"))
    return [f"docker build --file {dockerfile}{index} --tag {settings.image} .", f"docker push {settings.image}"]


def _ray_up(settings: Settings, ray_up: RayUp, folder: Path) -> list[str]:
    config, secrets = shlex.quote(str(folder / "ray-cluster.yaml")), ray_up.secrets_folder
    once = [f"mkdir -p -m 700 {secrets} && (umask 077; openssl rand -hex 32 > {secrets}/auth_token)  # once"]
    if settings.storage.study_storage is not None:
        once.append(f"install -m 600 ~/.pgpass {secrets}/pgpass")
    return [
        *once,
        f"ray up {config}",
        f"ray dashboard {config}  # in another terminal, as long as you look at it",
        f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={secrets}/auth_token",
        f"ray job submit --no-wait --address http://localhost:8265 -- {entrypoint(settings)}",
        f"ray down {config}",
    ]


def _kuberay(settings: Settings, kubernetes: Kubernetes, folder: Path) -> list[str]:
    manifests = folder / "kuberay"
    secret = "kubectl create secret generic"
    commands = [f'{secret} {kubernetes.token_secret} --from-literal=auth_token="$(openssl rand -hex 32)"']
    if settings.storage.study_storage is not None:
        commands.append(f"{secret} {kubernetes.database_secret} --from-file=password=FILE")
    if settings.storage.shared_folder is not None:
        commands.append(f"kubectl apply -f {shlex.quote(str(manifests / 'experiments-volume.yaml'))}")
    return [
        *commands,
        f"kubectl apply -f {shlex.quote(str(manifests / 'ray-job.yaml'))}  # or ray-cluster.yaml, for one that stays",
    ]
