"""A cluster as its dashboard's web server tells of it; reached with the cluster's token, without starting Ray here."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import ClusterError, ClusterGoneError

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Node:
    """A node as the cluster sees it; ``total`` and ``used`` map a resource (``CPU``, ``GPU``, …) to its amount."""

    id: str
    address: str
    is_head: bool
    is_alive: bool
    total: Mapping[str, float]
    used: Mapping[str, float]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Dashboard:
    """The web server at ``url``, such as ``http://127.0.0.1:8265``; ``token`` is what it lets callers in by."""

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def is_on_loopback(self) -> bool:
        return (urlsplit(self.url).hostname or "").startswith("127.")

    @property
    def _opener(self) -> urllib.request.OpenerDirector:
        """Without a proxy to what is on this machine: it would not get there, and it would see the token."""
        return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if self.is_on_loopback else []))

    def nodes(self) -> list[Node]:
        """All nodes there are or were, the head first. Amounts in use are some seconds old."""
        nodes = self.get("/api/v0/nodes?detail=true")["result"]["result"]
        usage = self.get("/api/cluster_status")["clusterStatus"]["loadMetricsReport"]["usageByNode"]
        found = [
            Node(
                id=node["node_id"],
                address=node["node_ip"],
                is_head=node["is_head_node"],
                is_alive=node["state"] == "ALIVE",
                total=node["resources_total"],
                used={
                    name: amounts[0]
                    for name, amounts in usage.get(node["node_id"], {}).items()
                    if name in node["resources_total"]  # others are spelt in another way here
                },
                labels=node["labels"],
            )
            for node in nodes
        ]
        return sorted(found, key=lambda node: (not node.is_head, ip_address(node.address), node.id))

    def get(self, path: str) -> Any:
        """The data of a JSON answer.

        Raises:
            ClusterError: the address is wrong, the token is refused.
            ClusterGoneError: nothing answers there.
        """
        return self._ask(path, method="GET")

    def post(self, path: str) -> Any:
        """The same, of a request that changes something."""
        return self._ask(path, method="POST")

    def _ask(self, path: str, *, method: str) -> Any:
        request = urllib.request.Request(f"{self.url.rstrip('/')}{path}", headers=self.headers, method=method)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise self._explain(error.code, error.read(500).decode(errors="replace")) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ClusterGoneError(f"no Ray dashboard answers at {self.url}: {error}") from error
        if isinstance(answer, dict) and answer.get("result") is False:
            raise ClusterError(f"{self.url}{path}: {answer.get('msg')}")
        return answer["data"] if isinstance(answer, dict) and "data" in answer else answer

    def _explain(self, status: int, text: str) -> ClusterError:
        if status == 401:
            return ClusterError(
                f"{self.url} asks for a token; valid: --cluster NAME, or its token in $RAY_AUTH_TOKEN or in the file "
                "that $RAY_AUTH_TOKEN_PATH names"
            )
        if status == 403:
            return ClusterError(f"{self.url} refuses this token; it is that of another cluster, or of one that was")
        return ClusterError(f"{self.url} answered with HTTP status {status}: {' '.join(text.split())[:300]}")
