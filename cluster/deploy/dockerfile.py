"""The image of all nodes, built from the repository's root; without an entry point, as Ray brings its own commands."""

from __future__ import annotations

from cluster.deploy.nodes import HOME, USER_ID
from cluster.deploy.settings import Settings

_CONSTRAINTS = "constraints.txt"
_FILES = ("LICENSE", "README.md", "pyproject.toml")
_PACKAGES = ("cluster", "fmnist_models", "search")


def dockerfile(settings: Settings) -> str:
    """The Dockerfile's text: https://docs.docker.com/reference/dockerfile/"""
    storage = settings.storage
    copies = "\n".join(f"COPY {package} {package}/" for package in _PACKAGES)
    wanted = {
        "postgres": storage.study_storage is not None,
        "s3": storage.scheme == "s3",
        "gcs": storage.scheme == "gs",
    }
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    extras = f"[{','.join(names)}]" if names else ""
    # On the head, Ray's launcher starts machines through boto3, and reaches them by ssh and rsync.
    boto3 = " boto3" if settings.ray_up is not None else ""
    return f"""\
FROM python:3.11-slim

# Debian keeps no older version of a package that one could ask for.
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends openssh-client rsync \\
 && rm -rf /var/lib/apt/lists/* \\
 && useradd --create-home --home-dir {HOME} --uid {USER_ID} --shell /bin/bash ray

WORKDIR /opt/fmnist-search
COPY {_CONSTRAINTS} ./
{_torch(settings)}
COPY {" ".join(_FILES)} ./
{copies}
RUN pip install --no-cache-dir --constraint {_CONSTRAINTS} '.{extras}'{boto3}

USER {USER_ID}
WORKDIR {HOME}
ENV HOME={HOME} \\
    FMNIST_EXPERIMENTS_DIR={storage.experiments_dir} \\
    FMNIST_DATA_DIR={storage.data_dir}
CMD ["fmnist", "--help"]
"""


def dockerignore() -> str:
    """Everything but the sources, so that neither data nor results nor anyone's secrets get into an image."""
    sources = [f"!{source}" for source in (_CONSTRAINTS, *_FILES, *_PACKAGES)]
    return "\n".join(["*", *sources, "**/__pycache__", "**/*.pyc", ""])


def _torch(settings: Settings) -> str:
    """A layer of its own, as it is by far the largest and changes least."""
    install = f"RUN pip install --no-cache-dir --constraint {_CONSTRAINTS}"
    if settings.torch == "cuda":
        return f"{install} torch torchvision"
    return f"""\
ARG TORCH_INDEX_URL
{install} \\
    --index-url "${{TORCH_INDEX_URL:?is where PyTorch has wheels for CPUs}}" torch torchvision"""
