"""Which cluster a person means: one of this machine by its name, or any by the address of its dashboard."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from cluster.dashboard import Dashboard
from cluster.errors import ClusterError
from cluster.folder import clusters_dir, list_clusters
from cluster.local import LocalCluster


def find_dashboard(*, cluster: str | None, address: str | None) -> Dashboard:
    """The dashboard of the named cluster, of that at ``address``, or of the only one of this machine.

    The token of an address is where Ray looks for it: ``$RAY_AUTH_TOKEN``, the file ``$RAY_AUTH_TOKEN_PATH``, or
    ``~/.ray/auth_token``.

    Raises:
        ClusterError: both are given, there is no such cluster, or nobody can tell which is meant.
    """
    if cluster is not None and address is not None:
        raise ClusterError(f"give a cluster of this machine ({cluster}) or an address ({address}), not both")
    if address is not None:
        return Dashboard(_check_address(address), _find_token())
    if cluster is None:
        cluster = _only_cluster()
    return LocalCluster(cluster).dashboard


def _only_cluster() -> str:
    names = [folder.name for folder in list_clusters(clusters_dir())]
    if not names:
        raise ClusterError(
            "there is no cluster on this machine; `fmnist cluster up` starts one, --address http://HOST:8265 names one "
            "elsewhere"
        )
    if len(names) > 1:
        raise ClusterError(f"there are several clusters on this machine; --cluster NAME says which: {', '.join(names)}")
    return names[0]


def _check_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return address.rstrip("/")
    except ValueError:
        pass
    raise ClusterError(f"--address {address!r}: valid is the dashboard's, such as http://127.0.0.1:8265")


def _find_token() -> str | None:
    token = os.environ.get("RAY_AUTH_TOKEN")
    if token:
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the token file {path} cannot be read: {error}") from error
