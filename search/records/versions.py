"""What a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

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


def collect_versions() -> dict[str, str]:
    """Name → version of Python, the system and every package that has a part in a result."""
    system = {"python": platform.python_version(), "system": platform.platform(), "machine": platform.machine()}
    return system | {name: version(name) for name in _DISTRIBUTIONS}
