"""The parts of a fleet's settings, each checked for itself."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _form(pattern: str, valid: str) -> AfterValidator:
    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"must be {valid}")
        return text

    return AfterValidator(check)


def _accelerator_type(text: str) -> str:
    from ray.util.accelerators import accelerators

    known = sorted(value for key, value in vars(accelerators).items() if key.startswith("NVIDIA_"))
    if text not in known:
        raise ValueError(f"must be what Ray calls a GPU of NVIDIA's: {', '.join(known)}")
    return text


def _path(text: str) -> str:
    if re.fullmatch(r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+", text) is None:
        raise ValueError("must be a full path of letters, digits, '_', '.' and '-'")
    return text


def _place(text: str) -> str:
    if re.fullmatch(r"(s3|gs)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", text) is None:
        try:
            return _path(text)
        except ValueError as error:
            raise ValueError(f"{error}, or s3://BUCKET/FOLDER, or gs://BUCKET/FOLDER") from None
    return text


def _one_value(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("must be one value, as on a command line")
    return value


_POSTGRES = (
    r"postgresql://([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]{1,5})?/[A-Za-z0-9_][A-Za-z0-9_.-]*"
)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"

# KubeRay takes at most 47 characters for a RayJob, whose submitter and cluster are called after it.
Name = Annotated[
    str, _form("[a-z]([a-z0-9-]{0,38}[a-z0-9])?", "1 to 40 of a-z, 0-9 and '-', the first a letter, the last no '-'")
]
Resource = Annotated[str, _form("[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", "a name in Kubernetes: a-z, 0-9, '-' and '.'")]
Image = Annotated[
    str,
    _form(
        r"[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})(?<!:latest)",
        "NAME:TAG, the tag not 'latest', so that all nodes run the same",
    ),
]
Quantity = Annotated[str, _form("[1-9][0-9]{0,6}[MGT]i", "an amount such as 512Mi or 16Gi")]
Word = Annotated[
    str,
    _form(
        "[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "up to 100 letters, digits, '.', '_' and '-', the first a letter or digit"
    ),
]
Folder = Annotated[str, AfterValidator(_path)]
Labels = Annotated[
    dict[
        Annotated[str, _form(rf"([a-z0-9][a-z0-9.-]*/)?{_LABEL}", "a label's key, such as karpenter.sh/capacity-type")],
        Annotated[str, _form(_LABEL, "a label's value: letters, digits, '-', '_' and '.'")],
    ],
    Field(min_length=1),
]


class Section(BaseModel):
    """Unknown keys are refused, and nothing is taken for another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Node(Section):
    """What one node has. ``instance_type``: the machine that has it, for `ray up`."""

    cpus: int = Field(ge=1, le=1024)
    memory: Quantity
    instance_type: Word | None = None


class Workers(Node):
    """``min`` to ``max`` nodes, which may be taken away at any time if ``spot``."""

    min: int = Field(ge=0, le=10_000)
    max: int = Field(ge=1, le=10_000)
    spot: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min <= max must hold, but got min={self.min}, max={self.max}")
        return self


class GpuWorkers(Workers):
    """``gpus`` of one ``accelerator_type``, as Ray calls it, on each node."""

    gpus: int = Field(ge=1, le=64)
    accelerator_type: Annotated[str, AfterValidator(_accelerator_type)]


class Storage(Section):
    """``shared_folder`` is the same on all nodes; ``experiments_dir`` is in it or on object storage."""

    experiments_dir: Annotated[str, AfterValidator(_place)]
    data_dir: Folder
    shared_folder: Folder | None = None
    study_storage: (
        Annotated[str, _form(_POSTGRES, "postgresql://[USER@]HOST[:PORT]/DATABASE, without a password")] | None
    ) = None

    @property
    def scheme(self) -> str | None:
        """``s3`` or ``gs``; ``None`` for a path."""
        return self.experiments_dir.partition("://")[0] if "://" in self.experiments_dir else None

    @model_validator(mode="after")
    def _is_shared(self) -> Self:
        kept = [PurePosixPath(place) for place in (self.experiments_dir, self.data_dir) if "://" not in place]
        inside = [self.shared_folder is not None and place.is_relative_to(self.shared_folder) for place in kept]
        if self.scheme is None and not inside[0]:
            raise ValueError(
                f"experiments_dir must be in shared_folder, as all nodes write there, or on s3://… or gs://…, but got "
                f"{self.experiments_dir} and {self.shared_folder}"
            )
        if self.shared_folder is not None and not any(inside):
            raise ValueError(
                f"shared_folder: neither experiments_dir nor data_dir is in {self.shared_folder}; leave it out"
            )
        return self


class Job(Section):
    """The search that a fleet is for: a ``preset`` or a ``config`` file that the head sees, and ``set`` over it."""

    name: Word
    preset: Word | None = None
    config: Folder | None = None
    set: dict[
        Annotated[str, _form("[A-Za-z_][A-Za-z0-9_.]*", "a key, such as space.lr")],
        Annotated[Any, AfterValidator(_one_value)],
    ] = {}

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.preset is None) == (self.config is None):
            raise ValueError("give either preset or config")
        return self


class RayUp(Section):
    """What `ray up` needs to know of AWS."""

    region: Annotated[str, _form("[a-z]{2,3}(-[a-z]+)+-[0-9]", "a region, such as us-west-2")]
    ami: Annotated[str, _form("ami-[0-9a-f]{8,17}", "an image of machines, such as ami-0123456789abcdef0")]
    ssh_user: Word = "ubuntu"
    disk_gb: int = Field(default=200, ge=50, le=16_000)
    nfs: Annotated[str, _form(r"[A-Za-z0-9.-]+:(/[A-Za-z0-9_.-]+)+", "SERVER:/PATH")] | None = None
    worker_instance_profile: (
        Annotated[str, _form(r"[A-Za-z0-9_+=,.@-]{1,128}", "the name of an IAM instance profile")] | None
    ) = None
    secrets_folder: Annotated[str, _form(r"~?(/[A-Za-z0-9_.-]+)+", "a full path, or one from ~/")] = "~/.fmnist-secrets"


class Kubernetes(Section):
    """What KubeRay's manifests need to know of a Kubernetes cluster."""

    token_secret: Resource
    database_secret: Resource | None = None
    object_secret: Resource | None = None
    service_account: Resource | None = None
    storage_class: Resource | None = None
    volume_size: Quantity = "100Gi"
    spot_label: Labels | None = None
    gpu_label: Labels | None = None
