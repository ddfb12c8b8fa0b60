"""What a result was made with."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_DISTRIBUTIONS = (
    "fmnist-search",
    "ray",
    "torch",
    "torchvision",
    "optuna",
    "scikit-learn",
    "numpy",
    "pandas",
    "pydantic",
    "safetensors",
)
_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 10


def collect_versions() -> dict[str, str]:
    """Name → version of Python, the system and every package that has a part in a result; where this project runs from
    a checkout, its ``commit`` and whether there were ``uncommitted_changes``, as they were at the first call."""
    system = {"python": platform.python_version(), "system": platform.platform(), "machine": platform.machine()}
    return system | describe_checkout(_ROOT) | {name: version(name) for name in _DISTRIBUTIONS}


@functools.cache
def describe_checkout(root: Path) -> dict[str, str]:
    """``commit`` and ``uncommitted_changes`` (``yes`` or ``no``) of the Git checkout whose root this is; nothing if it
    is none, or Git is not there or refuses. A checkout around it, such as one that holds a virtual environment, is
    another project's."""
    if not (root / ".git").exists():
        return {}
    commit = _ask_git(root, "rev-parse", "HEAD")
    changes = _ask_git(root, "status", "--porcelain")
    if commit is None or changes is None:
        return {}
    return {"commit": commit.strip(), "uncommitted_changes": "yes" if changes.strip() else "no"}


def _ask_git(root: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
