"""Where a search is to be told to MLflow, and whose word it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from search.errors import ConfigError

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_EXPERIMENT = "fmnist-search"
_VALID = (
    "valid: http://host:port or https://host; user and password go in $MLFLOW_TRACKING_USERNAME and "
    "$MLFLOW_TRACKING_PASSWORD"
)


@dataclass(frozen=True)
class Target:
    """An MLflow server, and the experiment there, in MLflow's sense, that takes the runs."""

    tracking_uri: str
    experiment: str = DEFAULT_EXPERIMENT


def parse_tracking_uri(text: str) -> str:
    """The address again, of a server and without a password, which would be written into results and messages.

    Raises:
        ValueError: it is none, or holds one; says what is valid and quotes nothing.
    """
    try:
        parts = urlsplit(text)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_server = False
    if not is_server or not text.isprintable() or " " in text or len(text) > 1000:
        raise ValueError(f"is no address of an MLflow server; {_VALID}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"holds a user, a password or a key; {_VALID}")
    return text.rstrip("/")


def choose_target(configured: Target | None, *, explicit: str | None, experiment: str | None) -> Target:
    """Where a person wants an experiment to be sent: to ``explicit``, else to ``$MLFLOW_TRACKING_URI``; the address in
    an experiment's configuration, a stranger's maybe, is not enough for credentials to be sent there.

    Raises:
        ConfigError: nobody said where, or what was said is no address.
    """
    text = explicit or os.environ.get(TRACKING_URI_VARIABLE)
    if not text:
        there = f"{configured.tracking_uri}, if you trust it" if configured else "an MLflow server"
        raise ConfigError(f"where to? Set --tracking-uri or ${TRACKING_URI_VARIABLE} to {there}")
    try:
        uri = parse_tracking_uri(text)
    except ValueError as error:
        raise ConfigError(f"{'--tracking-uri' if explicit else '$' + TRACKING_URI_VARIABLE} {error}") from error
    return Target(uri, experiment or (configured.experiment if configured else DEFAULT_EXPERIMENT))


def is_named(target: Target) -> bool:
    """Whether the environment names the target's server too."""
    return os.environ.get(TRACKING_URI_VARIABLE, "").rstrip("/") == target.tracking_uri
