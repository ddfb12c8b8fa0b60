"""Paths as a person writes them, and this user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from fmnist_models.errors import PathError


def expand_home(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder.

    A shell does this only without quotes, and never within ``--option=~/x`` or in a file: every path that comes from an
    option, an environment variable or a configuration file goes through here.

    Raises:
        PathError: there is no such user, or the home folder is unknown.
    """
    text = os.fspath(path)
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise PathError(
            f"{text}: the home folder of {text.partition('/')[0]} is unknown; valid: a full path, or ./{text} for a "
            "file of that name"
        )
    return Path(expanded)


def cache_folder() -> Path:
    """This project's folder in ``$XDG_CACHE_HOME``, or else in ``~/.cache``; may not exist yet.

    Raises:
        PathError: the home folder is unknown.
    """
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fmnist-search"
