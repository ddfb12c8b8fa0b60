"""The token by which Ray knows who may use a cluster, and the environment variables that say where it is."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.paths import expand_home

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
VARIABLES = (_MODE, _TOKEN, _PATH)
_MODES = ("token", "disabled")
_VALID = f"valid: a token in ${_TOKEN}, a file with one in ${_PATH}, or neither variable"


def variables_for(token: Path) -> dict[str, str]:
    """Environment variables that have Ray use the token in a file; ``$RAY_AUTH_TOKEN``, which goes first, must be
    unset."""
    return {_MODE: "token", _PATH: str(token)}


@contextlib.contextmanager
def own_token(path: Path) -> Iterator[None]:
    """Within the block, Ray uses a new token in this process and its children, written to ``path`` for this user alone.

    What the environment says of tokens does not count meanwhile.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(secrets.token_hex(32))
    with _environment(variables_for(path)):
        yield


@contextlib.contextmanager
def given_token() -> Iterator[None]:
    """Within the block, Ray uses the token that the environment names, in a path that may begin with ``~``.

    Raises:
        ClusterError: the environment's variables lead to no token.
    """
    _check_variables()
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    has_path = bool(given.get(_PATH)) and not _is_disabled()
    with _environment(given | {_PATH: str(expand_home(given[_PATH]))} if has_path else given):
        yield


def find_token() -> str | None:
    """The token where Ray looks for it: ``$RAY_AUTH_TOKEN``, the file ``$RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``.

    Raises:
        ClusterError: a variable is set but leads to no token, or the file cannot be read.
    """
    token, path = os.environ.get(_TOKEN), os.environ.get(_PATH)
    if token:
        if not token.strip():
            raise ClusterError(f"${_TOKEN} holds nothing but blanks; {_VALID}")
        return token.strip()
    if path:
        found = _read(path)
        if not found:
            raise ClusterError(f"the token file {path} (${_PATH}) has no token in its first line; {_VALID}")
        return found
    default = os.path.expanduser("~/.ray/auth_token")
    return _read(default) or None if os.path.isfile(default) else None


def _check_variables() -> None:
    mode = os.environ.get(_MODE, "")
    if mode and mode.lower() not in _MODES:
        raise ClusterError(f"${_MODE} is {mode!r}; valid: {', '.join(_MODES)}")
    if _is_disabled():
        return
    if find_token() is None and mode.lower() == "token":
        raise ClusterError(
            f"${_MODE} is {mode!r}, but there is no token; set ${_TOKEN}, or ${_PATH} to a file with one"
        )


def _is_disabled() -> bool:
    """Whether no token is wanted, wherever the other variables lead."""
    return os.environ.get(_MODE, "").lower() == "disabled"


def _read(path: str) -> str:
    """The first line, as Ray reads it."""
    try:
        lines = expand_home(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(f"the token file {path} cannot be read: {reason}; {_VALID}") from error
    return lines[0].strip() if lines else ""


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """``variables``, and no others about tokens, are in the environment within the block.

    Afterwards Ray itself keeps the token until the next block: its threads that are still ending would abort the
    process if there were none.
    """
    before = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    os.environ.update(variables)
    try:
        _reload()
        yield
    finally:
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


def _reload() -> None:
    """Has Ray read the environment again: it keeps the mode and the token that it has read once.

    Raises:
        ClusterError: this version of Ray has no such functions.
    """
    try:
        from ray import _raylet

        raylet: Any = _raylet  # which has no annotations
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    except (ImportError, AttributeError, TypeError) as error:
        raise ClusterError(f"the installed version of Ray cannot be given another token: {error}") from error
