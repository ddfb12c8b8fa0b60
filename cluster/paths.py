"""Paths as a person writes them."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.errors import ClusterError


def expand_home(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder, as ``fmnist_models.paths`` does.

    Raises:
        ClusterError: there is no such user, or the home folder is unknown.
    """
    text = os.fspath(path)
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ClusterError(f"{text}: the home folder of {text.partition('/')[0]} is unknown; valid: a full path")
    return Path(expanded)
