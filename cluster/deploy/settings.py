"""A fleet's settings: one small file, checked as a whole before anything is rendered."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cluster.deploy.sections import (
    GpuWorkers,
    Image,
    Job,
    Kubernetes,
    Name,
    Node,
    RayUp,
    Section,
    Storage,
    Workers,
)
from cluster.deploy.yaml_file import read_yaml
from cluster.errors import ClusterError

_MAX_BYTES = 2**16
_SECTIONS: dict[str, type[Section]] = {
    "head": Node,
    "cpu_workers": Workers,
    "gpu_workers": GpuWorkers,
    "storage": Storage,
    "job": Job,
    "ray_up": RayUp,
    "kubernetes": Kubernetes,
}


class Settings(Section):
    """Everything that a fleet is made of; at least one of ``cpu_workers`` and ``gpu_workers``, and one of ``ray_up``
    and ``kubernetes``. ``torch``: what the image has, for CPUs and GPUs (``cuda``) or, smaller, for CPUs alone.
    """

    name: Name
    image: Image
    torch: Literal["cuda", "cpu"]
    idle_timeout_s: int = Field(default=300, ge=30, le=86_400)
    head: Node
    cpu_workers: Workers | None = None
    gpu_workers: GpuWorkers | None = None
    storage: Storage
    job: Job
    ray_up: RayUp | None = None
    kubernetes: Kubernetes | None = None

    @property
    def workers(self) -> dict[str, Workers]:
        """What workers there are, by a name of their kind."""
        kinds = {"cpu": self.cpu_workers, "gpu": self.gpu_workers}
        return {kind: workers for kind, workers in kinds.items() if workers is not None}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for problem in self._misfits():
            raise ValueError(problem)
        return self

    def _misfits(self) -> Iterator[str]:
        if not self.workers:
            yield "give cpu_workers, gpu_workers or both: the head runs no trials"
        elif not any(workers.min for workers in self.workers.values()) and "max_concurrent_trials" not in self.job.set:
            yield (
                "cpu_workers.min or gpu_workers.min must be 1 or more, or job.set have max_concurrent_trials: without "
                "either a search has no slot to start with"
            )
        if self.gpu_workers is not None and self.torch == "cpu":
            yield "torch: must be cuda, as there are gpu_workers, but got 'cpu'"
        if self.storage.scheme is not None and self.storage.study_storage is None:
            yield "storage.study_storage is missing: experiments on object storage need a database"
        if self.ray_up is None and self.kubernetes is None:
            yield "give ray_up, kubernetes or both, or there is nothing to render"
        if self.ray_up is not None:
            yield from self._misfits_of_ray_up(self.ray_up)
        if self.kubernetes is not None:
            yield from self._misfits_of_kubernetes(self.kubernetes)

    def _misfits_of_ray_up(self, ray_up: RayUp) -> Iterator[str]:
        nodes = {"head": self.head} | {f"{kind}_workers": workers for kind, workers in self.workers.items()}
        for where, node in nodes.items():
            if node.instance_type is None:
                yield f"{where}.instance_type is missing, which ray_up needs"
        if self.storage.scheme == "gs":
            yield "storage.experiments_dir: ray_up's nodes on AWS have no access to gs://…; valid: s3://… or a path"
        if self.storage.scheme == "s3" and ray_up.worker_instance_profile is None:
            yield "ray_up.worker_instance_profile is missing, by which workers may write to s3://…"
        if self.storage.shared_folder is not None and ray_up.nfs is None:
            yield "ray_up.nfs is missing, which becomes storage.shared_folder"

    def _misfits_of_kubernetes(self, kubernetes: Kubernetes) -> Iterator[str]:
        if kubernetes.spot_label is None and any(workers.spot for workers in self.workers.values()):
            yield "kubernetes.spot_label is missing, by which spot nodes are known"
        if self.storage.study_storage is not None and kubernetes.database_secret is None:
            yield "kubernetes.database_secret is missing, which holds the password for storage.study_storage"


def example_settings() -> str:
    """The text of a settings file with everything in it."""
    return resources.files("cluster.deploy").joinpath("settings.yaml").read_text(encoding="utf-8")


def read_settings(path: Path) -> Settings:
    """The settings in a YAML file.

    Raises:
        ClusterError: no such file, not YAML, or something in it is wrong; says what, where and what would be valid.
    """
    return parse_settings(read_yaml(path, max_bytes=_MAX_BYTES), where=str(path))


def parse_settings(raw: Any, *, where: str) -> Settings:
    """The settings that a mapping holds; ``where`` names it in messages.

    Raises:
        ClusterError: something is wrong; says what, where and what would be valid.
    """
    if not isinstance(raw, dict):
        raise ClusterError(f"{where} must map keys to values, but holds {type(raw).__name__}: {str(raw)[:80]!r}")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise ClusterError("\n".join(f"{where}: {_explain(problem)}" for problem in error.errors())) from error


def _explain(problem: ErrorDetails) -> str:
    *parents, last = problem["loc"] or ("",)
    key = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            section = _SECTIONS[str(parents[0])] if parents else Settings
            return f"unknown key {key!r}; valid: {', '.join(section.model_fields)}"
        case "missing":
            return f"{key} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if last == "study_storage" or isinstance(problem["input"], dict | Section):  # may hold a password, or much
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, but got {problem['input']!r}"
