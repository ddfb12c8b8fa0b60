"""Which cluster a person means: one of this machine by its name, or any by the address of its dashboard."""

from __future__ import annotations

from urllib.parse import urlsplit

from cluster.dashboard import Dashboard
from cluster.errors import ClusterError
from cluster.folder import clusters_dir, list_clusters
from cluster.local import LocalCluster
from cluster.token import find_token


def find_dashboard(*, cluster: str | None, address: str | None) -> Dashboard:
    """The dashboard of the named cluster, of that at ``address``, or of the only one of this machine.

    The token of an address is where Ray looks for it: ``$RAY_AUTH_TOKEN``, the file ``$RAY_AUTH_TOKEN_PATH``, or
    ``~/.ray/auth_token``.

    Raises:
        ClusterError: both are given, there is no such cluster, several clusters match, or the token cannot be
            read.
    """
    if cluster is not None and address is not None:
        raise ClusterError(f"give a cluster of this machine ({cluster}) or an address ({address}), not both")
    if address is not None:
        return Dashboard(_check_address(address), find_token())
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
        is_whole = not parts.query and not parts.fragment  # Ray's own paths are put behind it
        if is_whole and parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0:
            return address.rstrip("/")
    except ValueError:
        pass
    raise ClusterError(f"--address {address!r}: valid is the dashboard's, such as http://127.0.0.1:8265")
