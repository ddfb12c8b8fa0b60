"""Writes what the settings mean into one folder: all files or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from cluster.deploy.dockerfile import dockerfile, dockerignore
from cluster.deploy.kuberay import experiments_volume, ray_cluster, ray_job
from cluster.deploy.ray_up import ray_up_config
from cluster.deploy.settings import Settings
from cluster.errors import ClusterError

_HEADER = "# Rendered by `fmnist cluster render`: change the settings instead, and render again."


class _Dumper(yaml.SafeDumper):
    """Writes what is there twice out twice: people read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(settings: Settings, folder: Path) -> list[Path]:
    """Writes the files into ``folder``, in the place of those that an earlier call left there, and returns their paths.

    A link to a folder is followed.

    Raises:
        ClusterError: there is something else in ``folder``, or the folder above it is missing.
        OSError: it cannot be written.
    """
    named, folder = Path(os.path.abspath(folder)), _resolve(folder)
    _check(folder)
    texts = _texts(settings)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new, old = aside / "new", aside / "old"
        for name, text in texts.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(f"{_HEADER}\n{text}", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [named / name for name in texts]


def _texts(settings: Settings) -> dict[str, str]:
    """The files' names and what is in them."""
    objects: dict[str, dict[str, Any]] = {}
    if settings.ray_up is not None:
        objects["ray-cluster.yaml"] = ray_up_config(settings, settings.ray_up)
    if settings.kubernetes is not None:
        objects["kuberay/ray-cluster.yaml"] = ray_cluster(settings, settings.kubernetes)
        objects["kuberay/ray-job.yaml"] = ray_job(settings, settings.kubernetes)
        if settings.storage.shared_folder is not None:
            objects["kuberay/experiments-volume.yaml"] = experiments_volume(settings, settings.kubernetes)
    # Docker reads this, and not a .dockerignore, for a Dockerfile that is not in the folder it builds from.
    texts = {"Dockerfile": dockerfile(settings), "Dockerfile.dockerignore": dockerignore()}
    return texts | {
        name: yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000) for name, value in objects.items()
    }


def _resolve(folder: Path) -> Path:
    target = Path(os.path.realpath(folder))
    if str(folder) == "-" or (os.path.lexists(target) and not target.is_dir()):
        raise ClusterError(f"{folder} is not a folder; valid: a new one, or one that was rendered before")
    if not target.parent.is_dir():
        raise ClusterError(f"{folder} cannot be written: there is no folder {target.parent}; make it first")
    return target


def _check(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() or path.is_symlink():
            _check_rendered(path, folder)


def _check_rendered(path: Path, folder: Path) -> None:
    header = b""
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    if header != _HEADER.encode():
        raise ClusterError(
            f"{folder} holds {path.relative_to(folder)}, which was not rendered; valid: a new folder, or one that was "
            "rendered before"
        )
