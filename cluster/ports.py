"""Ports to listen on."""

from __future__ import annotations

import contextlib
import socket

from cluster.errors import ClusterError


def free_ports(count: int) -> list[int]:
    """So many different ports on which nothing listens at this moment, on any address."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("", 0))
        return [bound.getsockname()[1] for bound in sockets]


def check_port(port: int) -> int:
    """The port again, on which nothing listens.

    Raises:
        ClusterError: something does, or this user may not listen there.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has just ended is no harm
            probe.bind(("", port))
    except (OSError, OverflowError) as error:
        raise ClusterError(f"port {port} cannot be had ({error}); valid: a free port from 1024 to 65535") from error
    return port
