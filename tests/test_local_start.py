"""Starting the nodes of a local cluster, without Ray."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster import local
from cluster.folder import Record
from cluster.local import LocalCluster


def test_ctrl_c_while_nodes_are_being_started_ends_those_that_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    are_ended, has_waited = threading.Event(), threading.Event()

    def start_node(cluster: LocalCluster, record: Record, number: int) -> None:
        if number > 0 and not are_ended.wait(timeout=10):  # as `ray start` takes long
            has_waited.set()

    submit = ThreadPoolExecutor.submit

    def submit_and_interrupt(pool: ThreadPoolExecutor, *arguments: Any) -> Future[Any]:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return submit(pool, *arguments)

    monkeypatch.setattr(LocalCluster, "_start_node", start_node)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_and_interrupt)
    monkeypatch.setattr(local, "end_processes", lambda *arguments, **options: are_ended.set())
    cluster = LocalCluster("x", nodes=3, cpus_per_node=1, directory=tmp_path / "clusters")
    record = Record(
        host="here",
        mark=f"{0:016x}/",
        address="127.0.0.1:1",
        dashboard="http://127.0.0.1:2",
        temporary_folder="/tmp/fmnist-cluster-x",
        num_nodes=3,
    )
    with pytest.raises(KeyboardInterrupt):
        cluster._start(record)
    assert not has_waited.is_set()
