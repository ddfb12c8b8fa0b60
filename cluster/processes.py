"""The processes of a cluster, known by a mark in their environment that everything they start inherits."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from cluster.errors import ClusterError

MARK = "FMNIST_CLUSTER"

_PAUSE_S = 0.05
_SECONDS_TO_DIE = 60.0


def find_processes(mark: str) -> list[psutil.Process]:
    """This user's living processes whose mark begins with ``mark``."""
    return [process for process in _own_processes() if _mark_of(process).startswith(mark)]


def end_processes(mark: str, *, grace_s: float) -> None:
    """Ends this user's processes whose mark begins with ``mark``: with SIGTERM, after ``grace_s`` seconds with SIGKILL.

    Returns when none is left, those that they started meanwhile included.

    Raises:
        ClusterError: a process lives on ``_SECONDS_TO_DIE`` after its SIGKILL, as in a hung file system.
    """
    end_s = time.monotonic() + grace_s
    asked: set[psutil.Process] = set()
    while processes := find_processes(mark):
        is_late = time.monotonic() >= end_s
        if time.monotonic() > end_s + _SECONDS_TO_DIE:
            names = ", ".join(f"{process.pid} ({_name_of(process)})" for process in processes)
            raise ClusterError(f"these processes did not end within {_SECONDS_TO_DIE:g} s of their SIGKILL: {names}")
        for process in processes:
            if is_late or process not in asked:
                asked.add(process)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL if is_late else signal.SIGTERM)
        psutil.wait_procs(processes, timeout=_PAUSE_S)


def find_open_files(folder: Path) -> set[str]:
    """The files that this user's living processes have open in ``folder``, as paths from there."""
    top, found = f"{os.path.realpath(folder)}/", set()
    for process in _own_processes():
        with contextlib.suppress(psutil.Error, OSError):
            found |= {file.path.removeprefix(top) for file in process.open_files() if file.path.startswith(top)}
    return found


def _own_processes() -> Iterator[psutil.Process]:
    user = os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == user and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"


def _mark_of(process: psutil.Process) -> str:
    try:
        return process.environ().get(MARK, "")
    except (psutil.Error, OSError):  # it ended at this moment
        return ""
