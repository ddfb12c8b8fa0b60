"""Real clusters for tests: folders of their own, the command line as a person uses it, and that nothing is left."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.folder import Record, cluster_folder, clusters_dir
from cluster.processes import find_processes
from search.cli import main
from search.records.experiment import Experiment

REPOSITORY = Path(__file__).parent.parent
MARK = "FMNIST_TEST"
SMALL = {
    "dataset": "synthetic",
    "train_size": 400,
    "test_size": 100,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_trials": 3,
    "max_epochs": 1,
    "pruner": "none",
}
LONG = {**SMALL, "max_epochs": 5000}
_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_STARTED: list[subprocess.Popen[bytes]] = []


# --- A place for clusters ---


@contextlib.contextmanager
def place_for_clusters(folder: Path) -> Iterator[Path]:
    """Within the block clusters and experiments are noted down in ``folder``, the current one; after it nothing runs.

    Fashion-MNIST cannot be downloaded: the way out is closed for everything that is started.
    """
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in (*_ADDRESSES, *_TOKENS):
            patch.delenv(name, raising=False)
        patch.setenv(MARK, mark)
        patch.setenv("FMNIST_CLUSTERS_DIR", str(folder / "clusters"))
        patch.setenv("FMNIST_EXPERIMENTS_DIR", str(folder / "experiments"))
        patch.setenv("FMNIST_DATA_DIR", str(folder / "no-data"))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("COLUMNS", "160")
        for protocol in ("http", "https"):
            patch.setenv(f"{protocol}_proxy", "http://127.0.0.1:9")
        patch.setenv("no_proxy", "localhost,127.0.0.1,127.0.0.2,127.0.0.3")
        patch.setattr(urllib.request, "_opener", None)  # urlopen keeps the proxies of its first call in this process
        yield folder
        for process in _STARTED:  # none is still running, unless a test failed
            process.kill()
            process.wait()
        _STARTED.clear()
        left = {process: arguments_of(process) for process in processes_of(mark, folder)}
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert list(left.values()) == []


def processes_of(mark: str, folder: Path) -> list[psutil.Process]:
    """All processes but this one that have ``mark`` in their environment, or ``folder`` or what is in it open."""
    entry, found = f"{MARK}={mark}".encode(), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            is_one = process.pid != os.getpid() and (entry in entries or _has_open(process, folder))
            if is_one and _is_living(process):
                found.append(process)
    return found


def arguments_of(process: psutil.Process) -> list[str]:
    """Its command line; empty if it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _has_open(process: psutil.Process, folder: Path) -> bool:
    links = [f"/proc/{process.pid}/cwd", *(str(link) for link in Path(f"/proc/{process.pid}/fd").iterdir())]
    for link in links:
        with contextlib.suppress(OSError):
            if f"{os.readlink(link)}/".startswith(f"{folder}/"):
                return True
    return False


# --- What a cluster has, and that nothing of it is left ---


@dataclass(frozen=True)
class Trace:
    """What there is of a cluster: where it is noted down, all its processes, and on what they listen."""

    folder: Path
    record: Record
    processes: frozenset[psutil.Process]
    listening: frozenset[tuple[str, int]]


def trace(name: str) -> Trace:
    """Of the cluster of that name; its processes are found by their mark and, apart from it, by their files."""
    record = record_of(name)
    temporary = Path(record.temporary_folder)
    processes = {*find_processes(record.mark), *processes_of("none has this", temporary)}
    processes |= {child for process in processes for child in _children(process)}
    listening = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            connections = process.net_connections("tcp")
            listening |= {tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN}
    return Trace(clusters_dir() / name, record, frozenset(processes), frozenset(listening))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def assert_gone(cluster: Trace) -> None:
    """At once: none of its processes runs, nothing listens where they did, and its files are gone."""
    temporary = Path(cluster.record.temporary_folder)
    living = {process for process in cluster.processes if _is_living(process)}
    living |= {*find_processes(cluster.record.mark), *processes_of("none has this", temporary)}
    assert {process.pid: arguments_of(process) for process in living} == {}
    open_places = {port: address for address, port in cluster.listening if _is_open(address, port)}
    assert {port: arguments_of(process) for port, process in _find_listeners(open_places)} == {}
    assert not temporary.exists()
    assert not cluster.folder.exists()


def _find_listeners(ports: Collection[int]) -> Iterator[tuple[int, psutil.Process]]:
    """Who listens on them, apart from processes of other tests: those have another mark."""
    entry = f"{MARK}={os.environ[MARK]}".encode()
    for connection in psutil.net_connections("tcp") if ports else []:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports and connection.pid is not None:
            with contextlib.suppress(psutil.Error, OSError):
                entries = Path(f"/proc/{connection.pid}/environ").read_bytes().split(b"\0")
                if entry in entries or not any(other.startswith(f"{MARK}=".encode()) for other in entries):
                    yield connection.laddr.port, psutil.Process(connection.pid)


def _is_living(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_open(address: str, port: int) -> bool:
    address = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(address, address.removeprefix("::ffff:"))
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except ConnectionRefusedError:
        return False


def record_of(name: str) -> Record:
    record = cluster_folder(name, directory=clusters_dir()).read()
    assert record is not None, f"no cluster {name} is noted down"
    return record


# --- The command line ---


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def fmnist(*arguments: str) -> Result:
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    result = Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())
    assert "Traceback" not in result.err
    return result


class Running:
    """The command as a process of its own, whose output goes to a file in the current folder."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._output = Path(f"output-{uuid.uuid4().hex[:8]}").absolute()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *(arguments if arguments[0] == "-c" else ("-m", "search.cli", *arguments))],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        _STARTED.append(self.process)

    @property
    def output(self) -> str:
        return self._output.read_text()

    def finish(self, *, code: int, timeout_s: float = 120) -> str:
        """Waits for the end, checks the exit code, and gives the output."""
        try:
            ended = self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
        assert ended == code, self.output
        assert "Traceback" not in self.output
        return self.output


# --- Searches as jobs ---


def write_config(settings: dict[str, Any], **changes: Any) -> str:
    path = Path(f"config-{uuid.uuid4().hex[:8]}.yaml").absolute()
    path.write_text(json.dumps(settings | changes), encoding="utf-8")  # JSON is YAML
    return str(path)


def submit(settings: dict[str, Any], *options: str, name: str, cluster: str) -> str:
    """Submits a search, and gives the job's id."""
    arguments = [write_config(settings), "--name", name, "--cluster", cluster, *options]
    return str(fmnist("submit", *arguments, "--json").json()["id"])


def job(job_id: str, cluster: str) -> dict[str, Any]:
    (row,) = [row for row in fmnist("jobs", "--cluster", cluster, "--json").json() if row["id"] == job_id]
    return dict(row)


def log(job_id: str, cluster: str) -> str:
    return fmnist("jobs", "logs", job_id, "--cluster", cluster).out


def experiment(name: str) -> Experiment:
    return Experiment(Path("experiments", name).absolute())


def epochs_files(name: str) -> dict[str, str]:
    """The tables of finished epochs by trial, with the seconds that each took: one trained again would differ."""
    found = {}
    for path in experiment(name).trials.glob("*/epochs.csv"):
        found[path.parent.name] = path.read_text()
    return found


def count_epochs(name: str) -> list[int]:
    """Finished epochs of each trial that has any."""
    return sorted(text.count("\n") - 1 for text in epochs_files(name).values())


def assert_kept(before: dict[str, str], name: str) -> None:
    now = epochs_files(name)
    assert [trial for trial, text in before.items() if not now.get(trial, "").startswith(text)] == []


def trial_processes(cluster: str, node: int | None = None) -> list[int]:
    """The processes that train, on one node or on all."""
    mark = record_of(cluster).mark + ("" if node is None else f"{node}/")
    found = []
    for process in find_processes(mark):
        with contextlib.suppress(psutil.Error):
            if "ImplicitFunc" in " ".join(arguments_of(process)):
                found.append(process.pid)
    return found


def wait_until(condition: Callable[[], object], *, timeout_s: float = 120) -> float:
    """Gives how long it took."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() < start_s + timeout_s, f"waited {timeout_s:g} s in vain"
        time.sleep(0.05)
    return time.monotonic() - start_s


def note(**measured: object) -> None:
    """Keeps what a test measured, beside its other files."""
    with Path("record.jsonl").open("a") as file:
        file.write(json.dumps(measured) + "\n")
